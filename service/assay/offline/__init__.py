"""Offline scoring: files of items for `assay score`, and the candidates of `assay best-of-n`."""
