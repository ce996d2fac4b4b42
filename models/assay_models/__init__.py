"""Reward models: the waist they share, their cards, the repository and the families."""
