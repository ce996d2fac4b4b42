"""The recipe of `code@2`, a small one-logit reward model for Python programs."""
