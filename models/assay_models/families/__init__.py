"""The families: how each kind of model computes. Torch lives here and nowhere else."""
