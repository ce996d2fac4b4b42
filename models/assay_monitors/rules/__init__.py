"""The rules that watch a run: each a small value with thresholds, pure over the run's steps."""
