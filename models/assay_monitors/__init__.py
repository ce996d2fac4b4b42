"""Reward health: what a run's scores look like step by step, and the rules that watch them."""
