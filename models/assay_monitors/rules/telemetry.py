"""Rules over the trainer's telemetry: entropy, KL divergence, lengths, votes, searches.

The names are those of `POST /v1/runs/{run}/telemetry`. Without them a rule here is silent.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import ClassVar

from assay_monitors.rules.base import Finding, Progress, Severity, grade
from assay_monitors.rules.progress import furthest, known_points, least, pooled, staged
from assay_monitors.rules.rolling import (
    TRAILING_POINTS,
    Tally,
    early_median,
    forward_fill,
    latest_values,
    pool_recent,
    recorded_values,
    switch_once_known,
    tallies,
    telemetry_values,
)
from assay_monitors.summaries import Point

ENTROPY = "entropy_nats"
KL = "kl"
LENGTH = "response_tokens_mean"
MAJORITY = "majority_share"
CLUSTERS = "clusters_mean"
NO_SEARCH = "no_search_share"
CLIPPED = "clipped_share"

POINTS_IN_A_ROW = 3
"""Points that must all be beyond a level: one value may be an outlier."""


@dataclass(frozen=True, slots=True)
class PolicyEntropy:
    """The policy's entropy as a share of its early median: below 10 % warns. At most `floor` nats
    at three points in a row is critical, whatever it was at first.

    Such a policy explores no more. It cannot distinguish certainty that is earned from collapse:
    for that see whether the outcome holds. Measured against the median of the first five points.

    From: the entropy half of the token-collapse rule, a tenth of the early median, made for
    certainty as the only reward (arXiv 2605.22620); the floor is a starting value.
    """

    id: ClassVar[str] = "policy_entropy"
    is_default: ClassVar[bool] = True
    limits: ClassVar[str] = "earned certainty from collapse"

    share: float = 0.1
    floor: float = 0.01

    def findings(self, series: Sequence[Point]) -> list[Finding | None]:
        """Return findings whose `value` is the entropy as a share of the early median, or the
        entropy in nats where that is critical.
        """
        floors = _findings_below(recorded_values(series, ENTROPY), self.floor)
        shares = _shares_of_early(telemetry_values(series, ENTROPY))
        return [floor or self._finding(share) for floor, share in zip(floors, shares, strict=True)]

    def progress(self, series: Sequence[Point]) -> Progress:
        """Return the points with an entropy, of those that are needed."""
        return known_points(recorded_values(series, ENTROPY))

    def _finding(self, share: float | None) -> Finding | None:
        if share is None or share >= self.share:
            return None
        return Finding("warn", value=share, threshold=self.share)


@dataclass(frozen=True, slots=True)
class TokenCollapse:
    """Entropy below 10 % and length below 30 % of their early medians: critical.

    A policy that is paid for certainty alone does this: short and certain answers. Without a
    length from the trainer the responses' own median is taken. Measured against the median of the
    first five points, so that it cannot distinguish a run that began collapsed from a healthy one.

    From: the token-collapse rule, whose case is certainty as the only reward (arXiv 2605.22620:
    2.4 to 0.08 nats, 990 to 100 tokens from step 60): entropy below 10 %, length below 30 %.
    """

    id: ClassVar[str] = "token_collapse"
    is_default: ClassVar[bool] = True
    limits: ClassVar[str] = "a run that began collapsed from a healthy one"

    entropy: float = 0.1
    length: float = 0.3

    def findings(self, series: Sequence[Point]) -> list[Finding | None]:
        """Return findings whose `value` is the entropy as a share of the early median."""
        entropies = _shares_of_early(telemetry_values(series, ENTROPY))
        lengths = _length_shares(series)
        return [self._finding(*both) for both in zip(entropies, lengths, strict=True)]

    def progress(self, series: Sequence[Point]) -> Progress:
        """Return the points with an entropy, and with a length, of those that are needed."""
        return least(known_points(recorded_values(series, ENTROPY)), _length_progress(series))

    def _finding(self, entropy: float | None, length: float | None) -> Finding | None:
        if entropy is None or length is None:
            return None
        if entropy >= self.entropy or length >= self.length:
            return None
        evidence = {"length_share": length}
        return Finding("critical", value=entropy, threshold=self.entropy, evidence=evidence)


@dataclass(frozen=True, slots=True)
class AnswerCollapse:
    """One answer in 95 % of a prompt's rollouts, while they grow a fifth longer or less certain.

    A policy that is paid for agreement alone does this: the vote rises while accuracy dies. It
    cannot distinguish that for sure from an easy task, where all agree as well: the second
    condition helps, a labelled split decides. Rising is a fifth above the median of the first five
    points.

    From: the answer-collapse rule, whose case is the vote as the only reward (arXiv 2605.22620):
    majority from 95 %, at most 1.1 clusters; the fifth is a starting value.
    """

    id: ClassVar[str] = "answer_collapse"
    is_default: ClassVar[bool] = True
    limits: ClassVar[str] = "a collapse from an easy task, without a labelled split"

    majority: float = 0.95
    clusters: float = 1.1
    rise: float = 1.2

    def findings(self, series: Sequence[Point]) -> list[Finding | None]:
        """Return findings whose `value` is the mean share of a group's most frequent answer."""
        columns = (
            telemetry_values(series, MAJORITY),
            telemetry_values(series, CLUSTERS),
            _shares_of_early(telemetry_values(series, ENTROPY)),
            _length_shares(series),
        )
        return [self._finding(*row) for row in zip(*columns, strict=True)]

    def progress(self, series: Sequence[Point]) -> Progress:
        """Return the points with a majority, and with a length or an entropy, of those needed."""
        entropies = known_points(recorded_values(series, ENTROPY))
        return least(
            known_points(recorded_values(series, MAJORITY)),
            furthest(entropies, _length_progress(series)),
        )

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
        evidence = {name: share for name, share in rising.items() if share is not None}
        if max(evidence.values(), default=0.0) < self.rise:
            return None
        return Finding("critical", value=majority, threshold=self.majority, evidence=evidence)


@dataclass(frozen=True, slots=True)
class KlJump:
    """A divergence from the reference of ten times its recent median, and above 0.1 nats: warns.
    At least `explosion` nats at three points in a row is critical.

    Growth is normal, a jump is not. It cannot distinguish a broken update from a reference or an
    estimator that was changed. Measured against the median of the last twenty points that were
    silent. The level is for sums over a response as well as for means over its tokens.

    No source gives thresholds: ten times, 0.1 nats at least, and 100 nats are starting values.
    """

    id: ClassVar[str] = "kl_jump"
    is_default: ClassVar[bool] = True
    limits: ClassVar[str] = "a broken update from a changed reference"

    times: float = 10.0
    least: float = 0.1
    explosion: float = 100.0
    least_points: int = 5

    def findings(self, series: Sequence[Point]) -> list[Finding | None]:
        """Return findings whose `value` is the divergence in the trainer's unit."""
        levels = _findings_above(recorded_values(series, KL), self.explosion)
        jumps = self._jumps(series)
        return [level or jump for level, jump in zip(levels, jumps, strict=True)]

    def progress(self, series: Sequence[Point]) -> Progress:
        """Return the points with a divergence, of those that are needed."""
        return known_points(recorded_values(series, KL), self.least_points + 1)

    def _jumps(self, series: Sequence[Point]) -> list[Finding | None]:
        recent: deque[float] = deque(maxlen=TRAILING_POINTS)
        findings: list[Finding | None] = []
        for value in telemetry_values(series, KL):
            finding = None if value is None else self._finding(value, recent)
            if value is not None and finding is None:
                recent.append(value)
            findings.append(finding)
        return findings

    def _finding(self, value: float, recent: Sequence[float]) -> Finding | None:
        if len(recent) < self.least_points:
            return None
        usual = median(recent)
        threshold = max(self.least, self.times * usual)
        if value <= threshold:
            return None
        return Finding("warn", value=value, threshold=threshold, evidence={"median": usual})


@dataclass(frozen=True, slots=True)
class CallsWithoutSearch:
    """The share of responses without a search, in a run that used to search: 90 % warns, 97 % is
    critical.

    Taken from the trainer's telemetry, else from the calls of the items. It cannot distinguish a
    policy that avoids the search from one that no longer needs it: the outcome can. A run in which
    more than half of the first responses had no search is not evaluated.

    From: the NLI-checker study (arXiv 2605.25988), where 98 % of answers came without a search by
    step 110; nine tenths, from half at most, are starting values.
    """

    id: ClassVar[str] = "calls_without_search"
    is_default: ClassVar[bool] = True
    limits: ClassVar[str] = "avoiding the search from no longer needing it"

    warn: float = 0.9
    critical: float = 0.97
    before: float = 0.5
    least_items: int = 64

    def findings(self, series: Sequence[Point]) -> list[Finding | None]:
        """Return findings whose `value` is the share of responses without a call."""
        calls = tallies([summary.calls for _, summary in series])
        pools = pool_recent(calls, Tally, self.least_items)
        counted = self._findings([None if pool is None else pool.share("0") for pool in pools])
        shares = telemetry_values(series, NO_SEARCH)
        return list(switch_once_known(_are_known(shares), self._findings(shares), counted))

    def progress(self, series: Sequence[Point]) -> Progress:
        """Return the items with calls, then the points, of those needed; or the telemetry's."""
        calls = tallies([summary.calls for _, summary in series])
        pools = pool_recent(calls, Tally, self.least_items)
        counted = staged(pooled(calls, self.least_items), known_points(pools))
        return furthest(known_points(recorded_values(series, NO_SEARCH)), counted)

    def _findings(self, shares: Sequence[float | None]) -> list[Finding | None]:
        return [self._finding(*both) for both in zip(shares, early_median(shares), strict=True)]

    def _finding(self, share: float | None, before: float | None) -> Finding | None:
        if share is None or before is None or before > self.before:
            return None
        severity = grade(share, self.warn, self.critical)
        if severity is None:
            return None
        return Finding(
            severity,
            value=share,
            threshold=self.critical if severity == "critical" else self.warn,
            evidence={"share_before": before},
        )


@dataclass(frozen=True, slots=True)
class ClippedShare:
    """The share of responses that were cut at the trainer's limit of length, at three points in a
    row: 50 % warns, 90 % is critical.

    Such a response has no end, and often no answer. It cannot distinguish a policy that never stops
    from a limit that is too low. No source gives a threshold; half, and nine tenths, are starting
    values.
    """

    id: ClassVar[str] = "clipped_share"
    is_default: ClassVar[bool] = True
    limits: ClassVar[str] = "a policy that never stops from a limit that is too low"

    warn: float = 0.5
    critical: float = 0.9

    def findings(self, series: Sequence[Point]) -> list[Finding | None]:
        """Return findings whose `value` is the latest share of responses that were cut."""
        shares = recorded_values(series, CLIPPED)
        grades = (
            _findings_above(shares, self.critical),
            _findings_above(shares, self.warn, "warn"),
        )
        return [critical or warn for critical, warn in zip(*grades, strict=True)]

    def progress(self, series: Sequence[Point]) -> Progress:
        """Return the points with a share, of the three that are needed."""
        return known_points(recorded_values(series, CLIPPED), POINTS_IN_A_ROW)


def _findings_above(
    values: Sequence[float | None], level: float, severity: Severity = "critical"
) -> list[Finding | None]:
    """Return findings where the latest three values are all at the level or above."""
    return [
        Finding(severity, value=latest[-1], threshold=level)
        if len(latest) == POINTS_IN_A_ROW and min(latest) >= level
        else None
        for latest in latest_values(values, POINTS_IN_A_ROW)
    ]


def _findings_below(values: Sequence[float | None], level: float) -> list[Finding | None]:
    """Return critical findings where the latest three values are all at the level or below."""
    negated = [None if value is None else -value for value in values]
    return [
        finding and Finding("critical", value=-finding.value, threshold=level)
        for finding in _findings_above(negated, -level)
    ]


def _length_progress(series: Sequence[Point]) -> Progress:
    sketches = [(summary.characters, summary.tokens) for _, summary in series]
    return furthest(
        known_points(recorded_values(series, LENGTH)),
        known_points([tokens.quantile(0.5) for _, tokens in sketches]),
        known_points([characters.quantile(0.5) for characters, _ in sketches]),
    )


def _shares_of_early(values: Sequence[float | None]) -> list[float | None]:
    return [
        None if value is None or not before else value / before
        for value, before in zip(values, early_median(values), strict=True)
    ]


def _length_shares(series: Sequence[Point]) -> list[float | None]:
    """Return the length by point as a share of its early median.

    The length is the trainer's once that is known; before, it is the median response's in tokens,
    else in characters. Each measure is compared with its own early median.
    """
    characters = forward_fill([summary.characters.quantile(0.5) for _, summary in series])
    shares = _shares_of_early(characters)
    for lengths in (
        forward_fill([summary.tokens.quantile(0.5) for _, summary in series]),
        telemetry_values(series, LENGTH),
    ):
        known = _are_known(lengths)
        shares = list(switch_once_known(known, _shares_of_early(lengths), shares))
    return shares


def _are_known(values: Sequence[float | None]) -> list[bool]:
    return [value is not None for value in values]
