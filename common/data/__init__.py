"""Episodes: stepping an environment, keeping and drawing what was seen."""
