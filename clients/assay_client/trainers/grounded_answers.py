"""A reward for policies that answer from evidence, for TRL. Read from TRL 1.16.0.

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

from assay_client._transport.zip import zipped
from assay_client.errors import AssayError, ItemFailedError
from assay_client.rewards.contracts import NO_ANSWER, OK, Account, GroundedAnswer, Sample, answer_of
from assay_client.trainers import trl
from assay_client.types import ScoreReply

_NEEDED = ("response", "references", "evidence")
_PARTS = ("base", "exact", "f1", "form", "penalty")


class Reward(trl.Reward):
    """A reward function for `reward_funcs`.

    The policies are those of `trl.Reward`, for completions to which the contract gives no reward.
    What has a stand-in is counted in `failures`, as failed and as substituted.

    Logged: the means of the contract's parts as `assay/base`, `assay/exact`, `assay/f1`,
    `assay/form` and `assay/penalty`; of the checker's own phis as `assay/phi`; of what they add to
    the rewards as `assay/from_phi`; and for each status but `ok` its share, as `assay/no_answer`
    and so on, and of each flag of the checker, as `assay/flag_truncated`.

    `fields` may name further fields of an item (`calls`, …), which are sent along.

    Args:
        model: as for `Settings`.
        contract: with its alpha and stand-ins; `GroundedAnswer()` unless given.
        **settings: as for `Settings`.

    Attributes:
        accounts: of the last call, one for each completion.

    Raises:
        ValueError: as `Settings`; `fields` leaves out what the contract needs; or `options` has a
            substitute, which is the contract's to name.
    """

    needed: ClassVar[tuple[str, ...]] = _NEEDED
    fields: ClassVar[Mapping[str, str]] = {name: name for name in _NEEDED}

    def __init__(
        self, model: str | None = None, *, contract: GroundedAnswer | None = None, **settings: Any
    ) -> None:
        super().__init__(model, **settings)
        if (self.settings.options or {}).get("on_error"):
            raise ValueError("leave options.on_error out: the contract's standins say it")
        self.contract = GroundedAnswer() if contract is None else contract
        self.accounts: list[Account] = []

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any
    ) -> list[float | None]:
        """One reward for each completion, None where there is none.

        Args:
            prompts: texts, or conversations.
            completions: texts, or the messages that answer.
            **columns: what TRL passes along: the data set's columns, `trainer_state`, `log_metric`.

        Raises:
            AssayError: the policy says so, or the set-up is at fault.
            ProtocolError: the model has no phi.
            ValueError: a column is missing, or a row has no reference.
        """
        drafts = trl.items_of(self, prompts, completions, columns)
        samples = [Sample(*(one[name] for name in _NEEDED)) for one in drafts]
        answered = [
            {name: value for name, value in draft.items() if name != "references"}
            for draft, sample in zipped(drafts, samples)
            if answer_of(sample.completion) is not None
        ]
        asked = zipped(answered, self.contract.items(samples))
        items = [{**draft, **item} for draft, item in asked]
        outcome = self.ask(items, trl.step_of(columns)) if items else None
        self.accounts = self._judged(samples, outcome, len(items))
        log: trl.LogMetric | None = columns.get("log_metric")
        if log is not None:
            for name, value in _means(self.accounts):
                log(f"assay/{name}", value)
        return trl.finish(self, drafts, [one.reward for one in self.accounts], columns)

    def _judged(
        self, samples: Sequence[Sample], outcome: ScoreReply | AssayError | None, asked: int
    ) -> list[Account]:
        """The accounts, what failed counted.

        Raises:
            AssayError: by the policy, where the contract gives no reward.
        """
        reply = outcome.reply if isinstance(outcome, ItemFailedError) else outcome
        if isinstance(reply, AssayError):
            self.judge(reply, asked)
            return self.contract.accounts(samples, None)
        accounts = self.contract.accounts(samples, reply)
        failed = [one for one in accounts if one.status not in (OK, NO_ANSWER)]
        substituted = sum(one.substituted for one in failed)
        self._count(asked - len(failed), [one.status for one in failed], substituted)
        unscored = len(failed) > substituted
        if unscored and isinstance(outcome, AssayError) and self.settings.on_failure == "raise":
            self.give_up(outcome)
        return accounts


def _means(accounts: Sequence[Account]) -> Iterator[tuple[str, float]]:
    for part in _PARTS:
        yield part, sum(getattr(one, part) for one in accounts) / len(accounts)
    phis = [one.phi for one in accounts if one.phi is not None and not one.substituted]
    if phis:
        yield "phi", sum(phis) / len(phis)
    added = [one.base * one.alpha * one.phi for one in accounts if one.phi is not None]
    if added:
        yield "from_phi", sum(added) / len(accounts)
    for status, times in Counter(one.status for one in accounts).items():
        if status != OK:
            yield status, times / len(accounts)
    for flag, times in Counter(flag for one in accounts for flag in one.flags).items():
        yield f"flag_{flag}", times / len(accounts)
