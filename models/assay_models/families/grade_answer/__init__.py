"""Final answers graded against a reference."""
