"""Final answers: their place in a response, their canonical forms, and equality of these."""
