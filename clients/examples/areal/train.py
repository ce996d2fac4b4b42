"""AReaL: the workflow's reward function, with ASSAY_URL, ASSAY_REWARD_MODEL and
ASSAY_REWARD_ON_FAILURE=raise in the environment of the rollout workers."""

from typing import Any


def workflow_arguments(gconfig: Any, tokenizer: Any) -> dict[str, Any]:
    """Return the arguments of `areal.workflow.rlvr.RLVRWorkflow`."""
    return {
        "reward_fn": "assay_client.trainers.areal.reward",
        "gconfig": gconfig,
        "tokenizer": tokenizer,
    }
