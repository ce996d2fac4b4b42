"""The rules that evaluate a run: each a frozen value with thresholds, pure over the run's steps."""
