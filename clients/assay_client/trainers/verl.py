"""verl: `reward.custom_reward_function`.

Checked against the source of verl 0.9.1.

    reward.custom_reward_function.path=pkg://assay_client.trainers.verl
    reward.custom_reward_function.name=compute_score
    +reward.custom_reward_function.reward_kwargs.model=code@2
    +reward.custom_reward_function.reward_kwargs.on_failure=raise

verl puts the function's result into a tensor, which cannot hold None, so `none` and `skip` are
refused. verl does not pass the prompt: it is taken from the row's `extra_info`.

Channels for `algorithm.adv_estimator=gdpo`, whose keys are those of `algorithm.gdpo_reward_keys`:

    +reward.custom_reward_function.reward_kwargs.channels=[correct,length]
    +reward.custom_reward_function.reward_kwargs.null_channels.length=0.5

A null channel would become NaN and spread to the whole batch, so `null_channels` says which number
stands for it. The key `length_null` is 1.0 where it does. A null without such a number is an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

from assay_client._transport.zip import zip_strict
from assay_client.advantages.channels import channel_of, replace_null
from assay_client.trainers._items import label_fields
from assay_client.trainers._rewards import (
    AsyncReward,
    Reward,
    SyncReward,
    refuse_all_but_raise,
    shared_reward,
)
from assay_client.trainers._settings import split_settings
from assay_client.types import ScoreReply

_REFUSED = refuse_all_but_raise("verl puts every reward into a tensor, which takes no None")
_VERL_ARGUMENTS = frozenset(
    {"channels", "null_channels", "reward_router_address", "reward_model_tokenizer"}
)

Score = dict[str, float]
R = TypeVar("R", bound=Reward)


class _Channels:
    """The channels that join a score, and the numbers that stand for null.

    Raises:
        ValueError: `null_channels` names a channel that is not in `channels`.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.names = [str(name) for name in given.get("channels") or ()]
        self.replacements = {
            str(name): float(value) for name, value in (given.get("null_channels") or {}).items()
        }
        replace_null({name: [] for name in self.names}, self.replacements)

    def scores(self, results: Sequence[Any]) -> list[Score]:
        """Return verl's dict for each result, all with the same keys.

        Raises:
            ValueError: the model lacks a channel, or one is null and no number stands for it.
        """
        columns = {
            name: [channel_of(result, name) for result in results]
            for name in ["score", *self.names]
        }
        filled = replace_null(columns, self.replacements)
        return [{name: filled[name][row] for name in filled} for row in range(len(results))]


class _Results(Reward):
    """A reward whose policy is to raise, so that each result that it returns has a score."""

    unsupported_on_failure: ClassVar[Mapping[str, str]] = _REFUSED

    def to_rewards(self, reply: ScoreReply) -> list[Any]:
        """Return the results themselves, with their channels."""
        return list(reply.results)


class _AsyncReward(_Results, AsyncReward):
    pass


class _SyncReward(_Results, SyncReward):
    pass


async def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: Mapping[str, Any] | None = None,
    **reward_kwargs: Any,
) -> Score:
    """Return the reward of one sample, as `score`, and its channels; concurrent samples are sent
    together.

    Args:
        data_source: of the row.
        solution_str: the policy's response.
        ground_truth: of the row; `fields` may name its fields, where it is an object.
        extra_info: of the row; it holds the prompt.
        **reward_kwargs: the settings, or those that the environment lacks; `channels` and
            `null_channels`.

    Raises:
        AssayError: there is no score.
        ValueError: a setting, a column or a channel is missing or invalid.
    """
    reward, channels = _reward_and_channels(_AsyncReward, reward_kwargs)
    sources = _sources(data_source, solution_str, ground_truth, extra_info)
    return channels.scores(await reward.scores([reward.item(sources)]))[0]


def compute_score_sync(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: Mapping[str, Any] | None = None,
    **reward_kwargs: Any,
) -> Score:
    """Return the reward of one sample, for the `remote` manager, which does not await."""
    reward, channels = _reward_and_channels(_SyncReward, reward_kwargs)
    sources = _sources(data_source, solution_str, ground_truth, extra_info)
    return channels.scores(reward.scores([reward.item(sources)]))[0]


def compute_score_batch(
    data_sources: Sequence[str],
    solution_strs: Sequence[str],
    ground_truths: Sequence[Any],
    extra_infos: Sequence[Mapping[str, Any]],
    **reward_kwargs: Any,
) -> list[Score]:
    """Return the rewards of a batch, for the `batch` manager, which passes all samples."""
    reward, channels = _reward_and_channels(_SyncReward, reward_kwargs)
    rows = zip_strict(data_sources, solution_strs, ground_truths, extra_infos)
    return channels.scores(reward.scores([reward.item(_sources(*row)) for row in rows]))


def _reward_and_channels(kind: type[R], reward_kwargs: Mapping[str, Any]) -> tuple[R, _Channels]:
    settings = split_settings(reward_kwargs, _VERL_ARGUMENTS)
    return shared_reward(kind, **settings), _Channels(reward_kwargs)


def _sources(
    source: str, solution: str, truth: Any, extra: Mapping[str, Any] | None
) -> dict[str, Any]:
    own = {"data_source": source, "ground_truth": truth, "response": solution}
    return {**(extra or {}), **label_fields(truth), **own}
