"""The families: the computation of each kind of model. Only these packages import torch."""
