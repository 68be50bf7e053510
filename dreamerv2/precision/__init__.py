"""Comparison of precisions: whole runs, and one update from inside."""
