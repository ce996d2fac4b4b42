"""Query-performance prediction, before and after retrieval."""
