"""Episodes of trained agents, and published scores."""
