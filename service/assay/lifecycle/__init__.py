"""The set of served models, and its changes while the server runs."""
