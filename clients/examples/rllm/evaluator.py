"""rllm: the evaluator of an agent, with ASSAY_URL, ASSAY_REWARD_MODEL and
ASSAY_REWARD_ON_FAILURE=raise in the environment."""

import rllm

from assay_client.trainers.rllm import evaluate

assay = rllm.evaluator(evaluate)
