"""A reward for policies that rewrite queries, for TRL.

Checked against the source of TRL 1.16.0.

    from assay_client.trainers.query_rewriting import Reward

    reward = Reward("video-qpp@2", on_failure="none", collection="msrvtt", empty=-1.0)
    trainer = GRPOTrainer(reward_funcs=[reward], train_dataset=rows, ...)

The data set has a column `original`, the query to be rewritten; the prompt instructs the policy to
rewrite it. The reward of a completion is the score of its rewrite, less the drift penalty for
leaving the original: the score alone is easily raised by detail that the original did not ask for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from assay_client.errors import AssayError, ItemFailedError
from assay_client.rewards.query_rewriting import DRIFT_CHANNELS, DriftPenalty, clean
from assay_client.trainers import trl
from assay_client.types import Result, ScoreReply


class Reward(trl.Reward):
    """A reward function for `reward_funcs`; the data set's column `original` has the queries.

    The policies are those of `trl.Reward`. The mean score and the means of the channels are logged
    as `assay/score`, `assay/similarity`, `assay/length_change` and `assay/novelty`, the share of
    completions without a rewrite as `assay/empty`.

    Args:
        model: as for `Settings`.
        drift_penalty: `DriftPenalty()` unless given.
        collection: of all queries; or name a column for it in `fields`.
        system: as `collection`.
        empty: the reward of a completion in which `clean` finds no rewrite. Unless given, the item
            is sent, and fails like any other item that cannot be scored.
        **settings: as for `Settings`.

    Raises:
        ValueError: as `Settings`, or `fields` lacks the query or its original.
    """

    required_fields: ClassVar[tuple[str, ...]] = ("query", "original")
    fields: ClassVar[Mapping[str, str]] = {"query": "response", "original": "original"}

    def __init__(
        self,
        model: str | None = None,
        *,
        drift_penalty: DriftPenalty | None = None,
        collection: str | None = None,
        system: str | None = None,
        empty: float | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(model, **settings)
        self.drift_penalty = DriftPenalty() if drift_penalty is None else drift_penalty
        self.empty = empty
        shared = {"collection": collection, "system": system}
        self._shared = {name: value for name, value in shared.items() if value is not None}

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any
    ) -> list[float | None]:
        """Return one reward for each completion; None for each that has none.

        Args:
            prompts: texts, or conversations.
            completions: texts, or the messages that answer.
            **columns: the columns of the data set, and TRL's `trainer_state` and
                `log_metric`.

        Raises:
            AssayError: the policy is to raise, or the configuration is wrong.
        """
        items = trl.build_items(self, prompts, completions, columns)
        sent = [item for item in items if item["query"] or self.empty is None]
        outcome = self.request_scores(sent, trl.current_step(columns)) if sent else None
        scored = iter([] if outcome is None else self.apply_policy(outcome, len(sent)))
        rewards = [
            next(scored) if item["query"] or self.empty is None else self.empty for item in items
        ]
        log: trl.LogMetric | None = columns.get("log_metric")
        if log is not None:
            log("assay/empty", sum(not item["query"] for item in items) / len(items))
            for name, mean in _means(_results(outcome)):
                log(f"assay/{name}", mean)
        return trl.finish(self, items, rewards, columns)

    def item(self, sources: Mapping[str, Any], group: str | None = None) -> dict[str, Any]:
        """Build an item from the rewrite that a completion holds, and its original.

        Raises:
            ValueError: a source is missing.
        """
        item = super().item(sources, group)
        return {**self._shared, **item, "query": clean(item["query"])}

    def to_rewards(self, reply: ScoreReply) -> list[float | None]:
        """Return the scores, less the drift penalty."""
        return [self.drift_penalty.reward(result) for result in reply.results]


def _results(outcome: ScoreReply | AssayError | None) -> Sequence[Result]:
    reply = outcome.reply if isinstance(outcome, ItemFailedError) else outcome
    return reply.results if isinstance(reply, ScoreReply) else ()


def _means(results: Sequence[Result]) -> Iterator[tuple[str, float]]:
    scored = [
        result
        for result in results
        if result.score is not None and "substituted" not in result.flags
    ]
    columns = {"score": [result.score for result in scored]}
    columns |= {name: [result.channels.get(name) for result in scored] for name in DRIFT_CHANNELS}
    for name, values in columns.items():
        known = [value for value in values if value is not None]
        if known:
            yield name, sum(known) / len(known)
