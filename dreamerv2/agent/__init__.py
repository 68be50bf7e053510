"""The algorithm: everything that has an equation in the paper."""
