"""A training run: configuration, construction, loop, checkpoints."""
