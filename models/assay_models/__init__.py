"""Reward models: their interface, their cards, the repository and the families."""
