"""Curves and timing."""
