"""The author's implementation: its numbers, names and runs."""
