"""A server under honest load with one attacker beside it: `python -m benchmarks.soak`."""
