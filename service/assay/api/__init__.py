"""The HTTP layer: routes, wire types and problem details."""
