"""Reward functions with the signatures that trainers call. Nothing here imports a trainer.

Each module supports one trainer. Its functions and callables can be pickled. Each requires a policy
for missing scores (`on_failure`): no default is right for every training.
"""

from assay_client.trainers._counts import Failures
from assay_client.trainers._rewards import failures
from assay_client.trainers._settings import Policy, Settings

__all__ = ["Failures", "Policy", "Settings", "failures"]
