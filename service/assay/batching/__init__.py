"""Batching: admission, scheduling and execution of forward passes, one batcher per model."""
