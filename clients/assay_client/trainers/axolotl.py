"""Axolotl, which names TRL's reward functions by their path.

Checked against the source of Axolotl 0.19.0.

    trl:
      reward_funcs: [assay_client.trainers.axolotl.reward]

It is configured by environment variables (`ASSAY_URL`, `ASSAY_REWARD_MODEL`,
`ASSAY_REWARD_ON_FAILURE`, …). The sequence-parallel and the asynchronous trainers of Axolotl count
a missing reward as 0, so `none` and `skip` are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

from assay_client.trainers import trl
from assay_client.trainers._rewards import shared_reward

_COUNTED_AS_ZERO = (
    "Axolotl's sequence-parallel and asynchronous trainers count a missing reward as 0. Choose "
    "'raise'; where you use neither of them, name a function of your own that calls "
    "assay_client.trainers.trl.Reward"
)


class Reward(trl.Reward):
    """TRL's reward, for Axolotl."""

    unsupported_on_failure: ClassVar[Mapping[str, str]] = {
        "none": _COUNTED_AS_ZERO,
        "skip": _COUNTED_AS_ZERO,
    }


def reward(prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float]:
    """Return one reward for each completion; environment variables hold the settings.

    Args:
        prompts: texts, or conversations.
        completions: texts, or the messages that answer.
        **columns: the columns of the data set, and TRL's `trainer_state` and `log_metric`.

    Raises:
        AssayError: there is no score.
        ValueError: an environment variable is missing or invalid.
    """
    # None is no result here, because `none` and `skip` are refused.
    return cast("list[float]", shared_reward(Reward)(prompts, completions, **columns))
