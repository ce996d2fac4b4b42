"""Reward functions with the signatures that trainers call. Nothing here imports a trainer.

Each module is one trainer's: its functions and callables can be pickled, and each is told what a
missing score becomes (`on_failure`), for there is no choice that is right for everybody.
"""

from assay_client.trainers._counts import Failures
from assay_client.trainers._rewards import failures
from assay_client.trainers._settings import Policy, Settings

__all__ = ["Failures", "Policy", "Settings", "failures"]
