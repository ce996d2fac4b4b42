"""verl: `reward.custom_reward_function`.

Checked against the source of verl 0.9.1.

    reward.custom_reward_function.path=pkg://assay_client.trainers.verl
    reward.custom_reward_function.name=compute_score
    +reward.custom_reward_function.reward_kwargs.model=code@2
    +reward.custom_reward_function.reward_kwargs.on_failure=raise

verl puts the function's result into a tensor, which cannot hold None, so `none` and `skip` are
refused. verl does not pass the prompt: it is taken from the row's `extra_info`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

from assay_client._transport.zip import zip_strict
from assay_client.trainers._items import label_fields
from assay_client.trainers._rewards import (
    AsyncReward,
    SyncReward,
    refuse_all_but_raise,
    shared_reward,
)
from assay_client.trainers._settings import split_settings

_REFUSED = refuse_all_but_raise("verl puts every reward into a tensor, which takes no None")
_VERL_ARGUMENTS = frozenset({"reward_router_address", "reward_model_tokenizer"})

Score = dict[str, float]


class _AsyncReward(AsyncReward):
    unsupported_on_failure: ClassVar[Mapping[str, str]] = _REFUSED


class _SyncReward(SyncReward):
    unsupported_on_failure: ClassVar[Mapping[str, str]] = _REFUSED


async def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: Mapping[str, Any] | None = None,
    **reward_kwargs: Any,
) -> Score:
    """Return the reward of one sample, as `score`; concurrent samples are sent together.

    Args:
        data_source: of the row.
        solution_str: the policy's response.
        ground_truth: of the row; `fields` may name its fields, where it is an object.
        extra_info: of the row; it holds the prompt.
        **reward_kwargs: the settings, or those that the environment lacks.

    Raises:
        AssayError: there is no score.
        ValueError: a setting or a column is missing or invalid.
    """
    reward = shared_reward(_AsyncReward, **split_settings(reward_kwargs, _VERL_ARGUMENTS))
    sources = _sources(data_source, solution_str, ground_truth, extra_info)
    return {"score": await reward.score_sample(sources)}


def compute_score_sync(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: Mapping[str, Any] | None = None,
    **reward_kwargs: Any,
) -> Score:
    """Return the reward of one sample, for the `remote` manager, which does not await."""
    reward = shared_reward(_SyncReward, **split_settings(reward_kwargs, _VERL_ARGUMENTS))
    sources = _sources(data_source, solution_str, ground_truth, extra_info)
    return {"score": reward.score_sample(sources)}


def compute_score_batch(
    data_sources: Sequence[str],
    solution_strs: Sequence[str],
    ground_truths: Sequence[Any],
    extra_infos: Sequence[Mapping[str, Any]],
    **reward_kwargs: Any,
) -> list[Score]:
    """Return the rewards of a batch, for the `batch` manager, which passes all samples."""
    reward = shared_reward(_SyncReward, **split_settings(reward_kwargs, _VERL_ARGUMENTS))
    rows = zip_strict(data_sources, solution_strs, ground_truths, extra_infos)
    scores = reward.scores([reward.item(_sources(*row)) for row in rows])
    return [{"score": cast("float", score)} for score in scores]


def _sources(
    source: str, solution: str, truth: Any, extra: Mapping[str, Any] | None
) -> dict[str, Any]:
    own = {"data_source": source, "ground_truth": truth, "response": solution}
    return {**(extra or {}), **label_fields(truth), **own}
