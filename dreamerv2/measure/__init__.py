"""Curves of runs, the actor's loss in its terms, and timing."""
