"""How `code@1` was made: a small one-logit reward model for Python programs."""
