"""Layers, distributions, the optimiser and what they are made of."""
