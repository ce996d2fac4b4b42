"""HTTP, and nothing else: routes, wire types and problem details."""
