"""The page on which a person plays inside the world model, and its server."""
