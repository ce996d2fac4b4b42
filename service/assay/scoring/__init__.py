"""Scoring: the way of one request from its items to its results."""
