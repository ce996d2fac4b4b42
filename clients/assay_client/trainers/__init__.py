"""Reward functions with the signatures that trainers call."""
