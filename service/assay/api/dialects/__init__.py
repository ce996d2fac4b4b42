"""Dialects: the wire formats of other servers' clients, one file each.

Each dialect only translates a request and its reply. No dialect imports another; where two share a
path, `shared_paths` distinguishes their bodies.
"""
