"""Callbacks with which a trainer watches its reward. Nothing here imports a trainer."""
