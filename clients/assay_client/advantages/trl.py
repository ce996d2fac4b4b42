"""TRL: one reward function for each channel of a model, from one request.

Checked against the source of TRL 1.16.0.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from assay_client.advantages.channels import channel_columns
from assay_client.errors import ItemFailedError
from assay_client.trainers import trl
from assay_client.trainers._items import drop_incomplete_groups
from assay_client.types import ScoreReply

Columns = dict[str, "list[float | None]"]


class _Channels(trl.Reward):
    """A request whose reply several functions read.

    The functions are called in turn with the same batch. The reply is kept until each has read it,
    or the batch is another; so a function that is called twice with one batch asks again.
    """

    def __init__(self, channels: Sequence[str], model: str | None, **settings: Any) -> None:
        super().__init__(model, **settings)
        if isinstance(channels, str) or not channels or len(set(channels)) < len(channels):
            raise ValueError("channels must be a list of different names")
        self.channels = tuple(channels)
        self._lock = threading.Lock()
        self._batch: Any = None
        self._columns: Columns = {}

    def take(
        self, name: str, prompts: Sequence[Any], completions: Sequence[Any], columns: Any
    ) -> list[float | None]:
        """Return a channel's column for a batch; request the batch's scores where that is due."""
        items = trl.build_items(self, prompts, completions, columns)
        batch = (trl.current_step(columns), items)
        with self._lock:
            if batch != self._batch or name not in self._columns:
                self._batch, self._columns = None, self._request(items, columns)
                self._batch = batch
            return self._columns.pop(name)

    def _request(self, items: list[dict[str, Any]], columns: Any) -> Columns:
        outcome = self.request_scores(items, trl.current_step(columns))
        scores = self.apply_policy(outcome, len(items))
        trl.finish(self, items, scores, columns)
        reply = outcome.reply if isinstance(outcome, ItemFailedError) else outcome
        if not isinstance(reply, ScoreReply):
            return {name: [None] * len(items) for name in self.channels}
        found = channel_columns(reply, self.channels)
        if self.settings.on_failure != "skip":
            return found
        kept = drop_incomplete_groups(scores, [item["group"] for item in items])
        dropped = {row for row, score in enumerate(kept) if score is None}
        return {
            name: [None if row in dropped else value for row, value in enumerate(column)]
            for name, column in found.items()
        }

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_lock": None, "_batch": None, "_columns": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock())


class ChannelReward:
    """A reward function of one channel, for TRL's `reward_funcs`; see `channel_rewards`.

    Attributes:
        channel: the channel's name.
        source: the reward that requests the scores, with `settings`, `failures` and `close`.
    """

    def __init__(self, source: _Channels, channel: str) -> None:
        self.source = source
        self.channel = channel
        self.__name__ = f"{source.__name__}_{channel}"

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any
    ) -> list[float | None]:
        """Return the channel of each completion; None where it is null. See `trl.Reward`."""
        return self.source.take(self.channel, prompts, completions, columns)


def channel_rewards(
    channels: Sequence[str], model: str | None = None, **settings: Any
) -> list[ChannelReward]:
    """Return one reward function for each channel; together they send one request for a batch.

        config = GRPOConfig(multi_objective_aggregation="normalize_then_sum", ...)
        functions = channel_rewards(["correct", "length"], "math@1", on_failure="none")
        trainer = GRPOTrainer(reward_funcs=functions, args=config, ...)

    TRL leaves a null channel out of its group's mean and spread, as `gdpo_advantages` does.

    Args:
        channels: names of channels; `score` is the score itself.
        model: as for `Settings`.
        **settings: as for `Settings`. With `on_failure="skip"` a completion without a score takes
            all of its prompt's completions out of all channels; a null channel does not.

    Raises:
        ValueError: as `trl.Reward`, or a name is twice in `channels`. When called: the model has no
            such channel.
    """
    source = _Channels(channels, model, **settings)
    return [ChannelReward(source, name) for name in source.channels]
