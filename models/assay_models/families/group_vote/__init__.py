"""Votes of the answers of one group, without labels."""
