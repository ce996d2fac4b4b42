"""Scoring files: what `assay score` does."""
