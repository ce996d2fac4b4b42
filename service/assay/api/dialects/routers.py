"""The routers of all dialects. No two have a path in common, but for `shared_paths`."""

from fastapi import APIRouter

from assay.api.dialects import (
    cohere,
    kserve,
    llamafactory,
    nemo_gym,
    openrlhf,
    reward_kit,
    roll,
    sglang,
    shared_paths,
    slime,
    tei,
    vllm,
)

ROUTERS: tuple[APIRouter, ...] = (
    openrlhf.router,
    slime.router,
    vllm.router,
    cohere.router,
    tei.router,
    sglang.router,
    shared_paths.router,
    llamafactory.router,
    nemo_gym.router,
    kserve.router,
    reward_kit.router,
    roll.router,
)
