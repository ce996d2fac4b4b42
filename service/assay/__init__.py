"""Assay: a server for reward models."""

__version__ = "0.1.0"
