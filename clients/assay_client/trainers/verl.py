"""verl: `reward.custom_reward_function`. Read from verl 0.9.1.

    reward.custom_reward_function.path=pkg://assay_client.trainers.verl
    reward.custom_reward_function.name=compute_score
    +reward.custom_reward_function.reward_kwargs.model=code@2
    +reward.custom_reward_function.reward_kwargs.on_failure=raise

verl puts what the function gives into a tensor, which takes no None, so `none` and `skip` are
refused. The prompt is not among what verl passes: it is taken from the row's `extra_info`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

from assay_client._transport.zip import zipped
from assay_client.trainers._items import held_against
from assay_client.trainers._rewards import AsyncReward, SyncReward, only_raise, reward_of
from assay_client.trainers._settings import split_settings

_REFUSED = only_raise("verl puts every reward into a tensor, which takes no None")
_PASSED_ALONG = frozenset({"reward_router_address", "reward_model_tokenizer"})

Score = dict[str, float]


class _Awaited(AsyncReward):
    refused: ClassVar[Mapping[str, str]] = _REFUSED


class _Waiting(SyncReward):
    refused: ClassVar[Mapping[str, str]] = _REFUSED


async def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: Mapping[str, Any] | None = None,
    **reward_kwargs: Any,
) -> Score:
    """The reward of one sample, as `score`; samples that are in the air at once travel together.

    Args:
        data_source: of the row.
        solution_str: what the policy wrote.
        ground_truth: of the row; `fields` may name its fields, where it is an object.
        extra_info: of the row; it holds the prompt.
        **reward_kwargs: the settings, or those that the environment does not give.

    Raises:
        AssayError: there is no score.
        ValueError: a setting or a column is missing, or cannot be meant.
    """
    reward = reward_of(_Awaited, **split_settings(reward_kwargs, _PASSED_ALONG))
    sources = _sources(data_source, solution_str, ground_truth, extra_info)
    return {"score": await reward.score_of(sources)}


def compute_score_sync(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: Mapping[str, Any] | None = None,
    **reward_kwargs: Any,
) -> Score:
    """As `compute_score`, for the `remote` manager, which awaits nothing."""
    reward = reward_of(_Waiting, **split_settings(reward_kwargs, _PASSED_ALONG))
    sources = _sources(data_source, solution_str, ground_truth, extra_info)
    return {"score": reward.score_of(sources)}


def compute_score_batch(
    data_sources: Sequence[str],
    solution_strs: Sequence[str],
    ground_truths: Sequence[Any],
    extra_infos: Sequence[Mapping[str, Any]],
    **reward_kwargs: Any,
) -> list[Score]:
    """As `compute_score`, for the `batch` manager, which hands over all samples at once."""
    reward = reward_of(_Waiting, **split_settings(reward_kwargs, _PASSED_ALONG))
    rows = zipped(data_sources, solution_strs, ground_truths, extra_infos)
    scores = reward.scores([reward.item(_sources(*row)) for row in rows])
    return [{"score": cast("float", score)} for score in scores]


def _sources(
    source: str, solution: str, truth: Any, extra: Mapping[str, Any] | None
) -> dict[str, Any]:
    own = {"data_source": source, "ground_truth": truth, "response": solution}
    return {**(extra or {}), **held_against(truth), **own}
