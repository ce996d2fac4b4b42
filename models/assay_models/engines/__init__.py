"""Clients of inference engines, which compute the forward pass of a model on another machine."""
