"""What knows nothing about DreamerV2; `dreamerv2` is built on it and comes with it."""

__version__ = "1.0.0"  # of the distribution that holds both packages
VERSION = f"dreamerv2 {__version__}"
