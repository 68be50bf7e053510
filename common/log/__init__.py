"""What a run shows while it goes on: metrics, progress, pictures."""
