"""Reward health: statistics of a run's scores by step, and the rules that evaluate them."""
