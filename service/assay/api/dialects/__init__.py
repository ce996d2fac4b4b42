"""Dialects: the wire formats of other servers' clients, one file each.

Each translates a request and its reply, and decides nothing. No dialect imports another; where two
share a path, `shared_paths` tells their bodies apart.
"""
