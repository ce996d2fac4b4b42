"""Calls of tools compared with those of a reference."""
