"""How `code@2` was made: a small one-logit reward model for Python programs."""
