"""Sampling with scores: learned, written by hand, or taken from a NumPyro model."""

__version__ = "0.1.0"
