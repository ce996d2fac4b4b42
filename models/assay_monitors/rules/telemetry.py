"""Rules over what only the trainer knows: entropy, KL, lengths, votes, searches.

The names are those of `POST /v1/runs/{run}/telemetry`. Without them a rule here is silent.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import ClassVar

from assay_monitors.rules.finding import Finding, graded
from assay_monitors.rules.windows import (
    MEMORY,
    Tally,
    early,
    filled,
    once_known,
    pooled,
    tallies,
    told,
)
from assay_monitors.summaries import Point

ENTROPY = "entropy_nats"
KL = "kl"
LENGTH = "response_tokens_mean"
MAJORITY = "majority_share"
CLUSTERS = "clusters_mean"
NO_SEARCH = "no_search_share"


@dataclass(frozen=True, slots=True)
class PolicyEntropy:
    """The policy's entropy is a small part of what it was.

    It explores no more. It cannot tell certainty that is earned from collapse: for that see whether
    the outcome holds. Measured against the median of the first five points.

    From: the entropy half of the token-collapse rule, a tenth of the early median, made for
    certainty as the only reward (arXiv 2605.22620).
    """

    id: ClassVar[str] = "policy_entropy"
    default: ClassVar[bool] = True
    cannot_tell: ClassVar[str] = "earned certainty from collapse"

    share: float = 0.1

    def findings(self, series: Sequence[Point]) -> list[Finding | None]:
        """`value` is the entropy as a share of the early median."""
        entropies = _relative(told(series, ENTROPY))
        return [
            Finding("warn", one, self.share) if one is not None and one < self.share else None
            for one in entropies
        ]


@dataclass(frozen=True, slots=True)
class TokenCollapse:
    """Entropy and length have both all but vanished.

    What a policy does that is paid for certainty alone: it says little, and that surely. Without a
    length from the trainer the responses' own median is taken. Measured against the median of the
    first five points, so that it cannot tell a run that began collapsed from a healthy one.

    From: the token-collapse rule, whose case is certainty as the only reward (arXiv 2605.22620:
    2.4 to 0.08 nats, 990 to 100 tokens from step 60): entropy below 10 %, length below 30 %.
    """

    id: ClassVar[str] = "token_collapse"
    default: ClassVar[bool] = True
    cannot_tell: ClassVar[str] = "a run that began collapsed"

    entropy: float = 0.1
    length: float = 0.3

    def findings(self, series: Sequence[Point]) -> list[Finding | None]:
        """`value` is the entropy as a share of the early median."""
        entropies = _relative(told(series, ENTROPY))
        lengths = _length_shares(series)
        return [self._finding(*both) for both in zip(entropies, lengths, strict=True)]

    def _finding(self, entropy: float | None, length: float | None) -> Finding | None:
        if entropy is None or length is None:
            return None
        if entropy >= self.entropy or length >= self.length:
            return None
        return Finding("critical", entropy, self.entropy, (), {"length_share": length})


@dataclass(frozen=True, slots=True)
class AnswerCollapse:
    """All rollouts of a prompt give one answer, while they grow longer or less certain.

    What a policy does that is paid for agreement alone: the vote rises while accuracy dies. It
    cannot tell that for sure from an easy task, where all agree as well: the second condition
    helps, a labelled split decides. Rising is a fifth above the median of the first five points.

    From: the answer-collapse rule, whose case is the vote as the only reward (arXiv 2605.22620):
    majority from 95 %, at most 1.1 clusters; the fifth is a starting value.
    """

    id: ClassVar[str] = "answer_collapse"
    default: ClassVar[bool] = True
    cannot_tell: ClassVar[str] = "for sure, without a labelled split"

    majority: float = 0.95
    clusters: float = 1.1
    rise: float = 1.2

    def findings(self, series: Sequence[Point]) -> list[Finding | None]:
        """`value` is the mean share of a group's most frequent answer."""
        columns = (
            told(series, MAJORITY),
            told(series, CLUSTERS),
            _relative(told(series, ENTROPY)),
            _length_shares(series),
        )
        return [self._finding(*row) for row in zip(*columns, strict=True)]

    def _finding(
        self,
        majority: float | None,
        clusters: float | None,
        entropy: float | None,
        length: float | None,
    ) -> Finding | None:
        if majority is None or majority < self.majority:
            return None
        if clusters is not None and clusters > self.clusters:
            return None
        rising = {"entropy_share": entropy, "length_share": length}
        evidence = {name: one for name, one in rising.items() if one is not None}
        if max(evidence.values(), default=0.0) < self.rise:
            return None
        return Finding("critical", majority, self.majority, (), evidence)


@dataclass(frozen=True, slots=True)
class KlJump:
    """The divergence from the reference is many times what it was lately.

    Growth is normal, a jump is not. It cannot tell a broken update from a reference or an estimator
    that was changed. Measured against the median of the last twenty points that were silent.

    No source gives thresholds: ten times, and 0.1 nats at least, are starting values.
    """

    id: ClassVar[str] = "kl_jump"
    default: ClassVar[bool] = True
    cannot_tell: ClassVar[str] = "a broken update from a changed reference"

    times: float = 10.0
    least: float = 0.1
    least_points: int = 5

    def findings(self, series: Sequence[Point]) -> list[Finding | None]:
        """`value` is the divergence in the trainer's unit."""
        lately: deque[float] = deque(maxlen=MEMORY)
        found: list[Finding | None] = []
        for value in told(series, KL):
            finding = None
            if value is not None and len(lately) >= self.least_points:
                threshold = max(self.least, self.times * median(lately))
                if value > threshold:
                    finding = Finding("warn", value, threshold, (), {"median": median(lately)})
            if value is not None and finding is None:
                lately.append(value)
            found.append(finding)
        return found


@dataclass(frozen=True, slots=True)
class CallsWithoutSearch:
    """Responses that were given without one search, in a run that used to search.

    Taken from what the trainer tells, else from the calls of the items. It cannot tell a policy
    that avoids the search from one that no longer needs it: the outcome can. A run that never
    searched much is not judged.

    From: the NLI-checker study (arXiv 2605.25988), where 98 % of answers came without a search by
    step 110; nine tenths, from half at most, are starting values.
    """

    id: ClassVar[str] = "calls_without_search"
    default: ClassVar[bool] = True
    cannot_tell: ClassVar[str] = "avoiding the search from no longer needing it"

    warn: float = 0.9
    critical: float = 0.97
    before: float = 0.5
    least_items: int = 64

    def findings(self, series: Sequence[Point]) -> list[Finding | None]:
        """`value` is the share of responses without a call."""
        windows = pooled(tallies([one.calls for _, one in series]), Tally, self.least_items)
        counted = self._findings([None if one is None else one.share("0") for one in windows])
        shares = told(series, NO_SEARCH)
        return list(once_known(_known(shares), self._findings(shares), counted))

    def _findings(self, shares: Sequence[float | None]) -> list[Finding | None]:
        return [self._finding(*both) for both in zip(shares, early(shares), strict=True)]

    def _finding(self, share: float | None, before: float | None) -> Finding | None:
        if share is None or before is None or before > self.before:
            return None
        severity = graded(share, self.warn, self.critical)
        if severity is None:
            return None
        threshold = self.critical if severity == "critical" else self.warn
        return Finding(severity, share, threshold, (), {"share_before": before})


def _relative(values: Sequence[float | None]) -> list[float | None]:
    return [
        None if value is None or not before else value / before
        for value, before in zip(values, early(values), strict=True)
    ]


def _length_shares(series: Sequence[Point]) -> list[float | None]:
    """Of its beginning: the length that the trainer tells; before that the median response's, in
    tokens, else in characters. Each measure is compared with its own beginning.
    """
    characters = filled([summary.characters.quantile(0.5) for _, summary in series])
    shares = _relative(characters)
    for lengths in (
        filled([summary.tokens.quantile(0.5) for _, summary in series]),
        told(series, LENGTH),
    ):
        shares = list(once_known(_known(lengths), _relative(lengths), shares))
    return shares


def _known(values: Sequence[float | None]) -> list[bool]:
    return [value is not None for value in values]
