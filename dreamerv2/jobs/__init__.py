"""Many runs: what is to be run, on this machine or on a Ray cluster, and how far each has come."""
