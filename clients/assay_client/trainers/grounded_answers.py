"""A reward for policies that answer from evidence, for TRL.

Checked against the source of TRL 1.16.0.

    from assay_client.trainers.grounded_answers import Reward

    reward = Reward("nli@2", on_failure="none", alpha=1.0)
    trainer = GRPOTrainer(reward_funcs=[reward], train_dataset=rows, ...)

The data set has the columns `evidence`, a list of passages, and `references`, a list of right
answers. The reward is that of the contract `grounded-answer@1` (`assay_client.rewards.contracts`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from assay_client._transport.zip import zip_strict
from assay_client.errors import AssayError, ItemFailedError
from assay_client.rewards.contracts import (
    NO_ANSWER,
    OK,
    GroundedAnswer,
    RewardBreakdown,
    Sample,
    extract_answer,
)
from assay_client.trainers import trl
from assay_client.types import ScoreReply

_REQUIRED = ("response", "references", "evidence")
_PARTS = ("base", "exact", "f1", "form", "penalty")


class Reward(trl.Reward):
    """A reward function for `reward_funcs`.

    The policies are those of `trl.Reward`, for completions to which the contract gives no reward.
    A completion with a fallback phi is counted in `failures`, as failed and as substituted.

    Logged: the means of the contract's parts as `assay/base`, `assay/exact`, `assay/f1`,
    `assay/form` and `assay/penalty`; of the checker's own phis as `assay/phi`; of their
    contribution to the rewards as `assay/from_phi`; and for each status but `ok` its share, as
    `assay/no_answer` and so on, and of each flag of the checker, as `assay/flag_truncated`.

    `fields` may name further fields of an item (`calls`, …), which are sent along.

    Args:
        model: as for `Settings`.
        contract: with its alpha and fallbacks; `GroundedAnswer()` unless given.
        **settings: as for `Settings`.

    Attributes:
        breakdowns: of the last call, one for each completion.

    Raises:
        ValueError: as `Settings`; `fields` lacks a field of the contract; or `options` has a
            substitute, which the contract's fallbacks replace.
    """

    required_fields: ClassVar[tuple[str, ...]] = _REQUIRED
    fields: ClassVar[Mapping[str, str]] = {name: name for name in _REQUIRED}

    def __init__(
        self, model: str | None = None, *, contract: GroundedAnswer | None = None, **settings: Any
    ) -> None:
        super().__init__(model, **settings)
        if (self.settings.options or {}).get("on_error"):
            raise ValueError("leave options.on_error out: the contract's fallbacks say it")
        self.contract = GroundedAnswer() if contract is None else contract
        self.breakdowns: list[RewardBreakdown] = []

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
            ProtocolError: the model has no phi.
            ValueError: a column is missing, or a row has no reference.
        """
        drafts = trl.build_items(self, prompts, completions, columns)
        samples = [Sample(*(draft[name] for name in _REQUIRED)) for draft in drafts]
        items = self._checker_items(drafts, samples)
        outcome = self.request_scores(items, trl.current_step(columns)) if items else None
        self.breakdowns = self._breakdowns(samples, outcome, len(items))
        log: trl.LogMetric | None = columns.get("log_metric")
        if log is not None:
            for name, value in _means(self.breakdowns):
                log(f"assay/{name}", value)
        rewards = [breakdown.reward for breakdown in self.breakdowns]
        return trl.finish(self, drafts, rewards, columns)

    def _checker_items(
        self, drafts: Sequence[dict[str, Any]], samples: Sequence[Sample]
    ) -> list[dict[str, Any]]:
        """Return the contract's items, with the further fields of the drafts."""
        answered = [
            {name: value for name, value in draft.items() if name != "references"}
            for draft, sample in zip_strict(drafts, samples)
            if extract_answer(sample.completion) is not None
        ]
        rows = zip_strict(answered, self.contract.items(samples))
        return [{**draft, **item} for draft, item in rows]

    def _breakdowns(
        self, samples: Sequence[Sample], outcome: ScoreReply | AssayError | None, asked: int
    ) -> list[RewardBreakdown]:
        """Compute the breakdowns, and count the failures.

        Raises:
            AssayError: the policy is to raise, and the contract gives no reward.
        """
        reply = outcome.reply if isinstance(outcome, ItemFailedError) else outcome
        if isinstance(reply, AssayError):
            self.apply_policy(reply, asked)
            return self.contract.breakdowns(samples, None)
        breakdowns = self.contract.breakdowns(samples, reply)
        failed = [breakdown for breakdown in breakdowns if breakdown.status not in (OK, NO_ANSWER)]
        substituted = sum(breakdown.substituted for breakdown in failed)
        reasons = [breakdown.status for breakdown in failed]
        self.record_counts(asked - len(failed), reasons, substituted)
        is_unscored = len(failed) > substituted
        if is_unscored and isinstance(outcome, AssayError) and self.settings.on_failure == "raise":
            self.raise_failure(outcome)
        return breakdowns


def _means(breakdowns: Sequence[RewardBreakdown]) -> Iterator[tuple[str, float]]:
    count = len(breakdowns)
    for part in _PARTS:
        yield part, sum(getattr(breakdown, part) for breakdown in breakdowns) / count
    with_phi = [(row, row.phi) for row in breakdowns if row.phi is not None]
    phis = [phi for row, phi in with_phi if not row.substituted]
    if phis:
        yield "phi", sum(phis) / len(phis)
    contributions = [row.base * row.alpha * phi for row, phi in with_phi]
    if contributions:
        yield "from_phi", sum(contributions) / count
    for status, times in Counter(row.status for row in breakdowns).items():
        if status != OK:
            yield status, times / count
    for flag, times in Counter(flag for row in breakdowns for flag in row.flags).items():
        yield f"flag_{flag}", times / count
