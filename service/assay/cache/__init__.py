"""Caches of raw model outputs: in memory, in Redis, and memory in front of Redis."""
