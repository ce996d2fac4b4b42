"""Rewards computed from scores: reward contracts and query rewriting."""
