"""Processes for untrusted texts: bounded, killed and replaced."""
