"""OpenRLHF: `--reward.remote_url reward.py`, with ASSAY_URL, ASSAY_REWARD_MODEL and
ASSAY_REWARD_ON_FAILURE=raise in the environment of the Ray job."""

from assay_client.trainers.openrlhf import reward_func

__all__ = ["reward_func"]
