"""Caches of raws: in memory, in Redis, and both in tiers."""
