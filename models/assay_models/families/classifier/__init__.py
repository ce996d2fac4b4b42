"""Scalar reward models on a transformer: loading, tokenization, packing, forward pass, parity."""
