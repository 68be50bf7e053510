"""Films of trained agents at play."""
