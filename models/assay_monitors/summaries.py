"""Summary: bounded, mergeable statistics of the observations of one step.

The order of observations and merges does not change a summary.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import combinations, islice
from typing import Any, NamedTuple, Protocol, Self, TypeVar

from assay_monitors.group_ranges import SCORE, GroupSample
from assay_monitors.moments import Comoments, Moments
from assay_monitors.observations import Observation, finite_or_none, group_digest
from assay_monitors.sketch import QuantileSketch

MAX_CHANNELS = 8
MAX_NAMES = 64
MAX_CALLS = 63

Counts = dict[str, int]


class Mergeable(Protocol):
    """Statistics that can be merged with others of their type."""

    def merge(self, other: Self) -> None:
        """Add all values of `other`."""


M = TypeVar("M", bound=Mergeable)
K = TypeVar("K", str, tuple[str, str])


@dataclass(slots=True, kw_only=True)
class Summary:
    """The statistics of one window.

    Names that a model or a trainer makes up (channels, labels, flags, telemetry) are bounded: the
    first in alphabetical order are kept, 8 channels and 64 names of each other kind, and those are
    complete.

    Attributes:
        items: the number of observations.
        nulls: items without a score.
        truncated: items that were truncated.
        invalid: items whose response held nothing to score.
        score: moments of the scores; `scores` their quantiles.
        channels: moments by channel.
        pairs: comoments by two channels, in alphabetical order.
        characters: quantiles of the response's length; `tokens` likewise.
        length_score: comoments of the response's length (characters, else tokens) and the score.
        labels, flags, sources, scripts: counts by name.
        calls: items by their number of calls, `63` for 63 and more.
        groups: the range of each group's scores.
        telemetry: moments of the values that the trainer sent, by name.
    """

    items: int = 0
    nulls: int = 0
    truncated: int = 0
    invalid: int = 0
    score: Moments = field(default_factory=Moments)
    scores: QuantileSketch = field(default_factory=QuantileSketch)
    channels: dict[str, Moments] = field(default_factory=dict)
    pairs: dict[tuple[str, str], Comoments] = field(default_factory=dict)
    characters: QuantileSketch = field(default_factory=QuantileSketch)
    tokens: QuantileSketch = field(default_factory=QuantileSketch)
    length_score: Comoments = field(default_factory=Comoments)
    labels: Counts = field(default_factory=dict)
    flags: Counts = field(default_factory=dict)
    sources: Counts = field(default_factory=dict)
    scripts: Counts = field(default_factory=dict)
    calls: Counts = field(default_factory=dict)
    groups: GroupSample = field(default_factory=GroupSample)
    telemetry: dict[str, Moments] = field(default_factory=dict)

    def add(self, observation: Observation) -> None:
        """Add one item."""
        score = finite_or_none(observation.score)
        self.items += 1
        self.nulls += score is None
        self.truncated += "truncated" in observation.flags
        self.invalid += observation.invalid
        if observation.labels:
            _add_counts(self.labels, observation.labels)
        if observation.flags:
            _add_counts(self.flags, dict.fromkeys(observation.flags, 1))
        for counts, name in (
            (self.sources, observation.source),
            (self.scripts, observation.script),
            (self.calls, _calls_name(observation.calls)),
        ):
            if name is not None:
                counts[name] = counts.get(name, 0) + 1
                _trim(counts, MAX_NAMES)
        self._add_lengths(observation, score)
        if score is not None:
            self._add_scores(observation, score)

    def add_telemetry(self, values: Mapping[str, float]) -> None:
        """Add the values that a trainer recorded for the step; values not finite are left out."""
        for name, value in values.items():
            if finite_or_none(value) is not None:
                self.telemetry.setdefault(name, Moments()).add(value)
        _trim(self.telemetry, MAX_NAMES)

    def merge(self, other: "Summary") -> None:
        """Add all that `other` holds."""
        self.items += other.items
        self.nulls += other.nulls
        self.truncated += other.truncated
        self.invalid += other.invalid
        _add_counts(self.labels, other.labels)
        _add_counts(self.flags, other.flags)
        _add_counts(self.sources, other.sources)
        _add_counts(self.scripts, other.scripts)
        _add_counts(self.calls, other.calls)
        self.score.merge(other.score)
        self.scores.merge(other.scores)
        self.characters.merge(other.characters)
        self.tokens.merge(other.tokens)
        self.length_score.merge(other.length_score)
        self.groups.merge(other.groups)
        _merge_by_name(self.telemetry, other.telemetry, Moments)
        _merge_by_name(self.channels, other.channels, Moments)
        _merge_by_name(self.pairs, other.pairs, Comoments)
        self._trim_channels()

    def _add_lengths(self, observation: Observation, score: float | None) -> None:
        if observation.characters is not None:
            self.characters.add(observation.characters)
        if observation.tokens is not None:
            self.tokens.add(observation.tokens)
        length = observation.tokens if observation.characters is None else observation.characters
        if length is not None and score is not None:
            self.length_score.add(length, score)

    def _add_scores(self, observation: Observation, score: float) -> None:
        self.score.add(score)
        self.scores.add(score)
        values = _finite_channels(observation.channels)
        for name, value in values.items():
            self.channels.setdefault(name, Moments()).add(value)
        for first, second in combinations(values, 2) if len(values) > 1 else ():
            self.pairs.setdefault((first, second), Comoments()).add(values[first], values[second])
        if observation.group is not None:
            self.groups.add(group_digest(observation.group), {SCORE: score, **values})
        self._trim_channels()

    def drop_pairs(self) -> None:
        """Drop the pairs of channels of which one is not kept."""
        for pair in list(self.pairs):
            if not set(pair) <= self.channels.keys():
                del self.pairs[pair]

    def _trim_channels(self) -> None:
        if len(self.channels) > MAX_CHANNELS:
            _trim(self.channels, MAX_CHANNELS)
            self.drop_pairs()


class Point(NamedTuple):
    """One step of a series, and its summary."""

    step: int
    summary: Summary


def bound_names(series: Iterable[Point]) -> None:
    """Keep of the channels and of the telemetry in a series the 64 names first in the alphabet."""
    summaries = [point.summary for point in series]
    channels = {name for summary in summaries for name in summary.channels}
    telemetry = {name for summary in summaries for name in summary.telemetry}
    if max(len(channels), len(telemetry)) <= MAX_NAMES:
        return
    kept_channels = set(sorted(channels)[:MAX_NAMES])
    kept_telemetry = set(sorted(telemetry)[:MAX_NAMES])
    for summary in summaries:
        _keep(summary.channels, kept_channels)
        _keep(summary.telemetry, kept_telemetry)
        summary.drop_pairs()


def summarise(observations: Iterable[Observation]) -> Summary:
    """Return the summary of observations, in any order."""
    summary = Summary()
    for observation in observations:
        summary.add(observation)
    return summary


def _finite_channels(channels: Mapping[str, float | None]) -> dict[str, float]:
    known = {
        name: value
        for name in sorted(channels)
        if (value := finite_or_none(channels[name])) is not None
    }
    return known if len(known) <= MAX_CHANNELS else dict(islice(known.items(), MAX_CHANNELS))


def _calls_name(calls: int | None) -> str | None:
    return None if calls is None else str(max(0, min(MAX_CALLS, calls)))


def _add_counts(counts: Counts, more: Mapping[str, int]) -> None:
    for name, times in more.items():
        counts[name] = counts.get(name, 0) + times
    _trim(counts, MAX_NAMES)


def _merge_by_name(mine: dict[K, M], others: Mapping[K, M], empty: type[M]) -> None:
    for name, other in others.items():
        mine.setdefault(name, empty()).merge(other)
    _trim(mine, MAX_NAMES)


def _trim(named: dict[K, Any], limit: int) -> None:
    if len(named) > limit:
        for name in sorted(named)[limit:]:
            del named[name]


def _keep(named: dict[str, Any], names: set[str]) -> None:
    for name in named.keys() - names:
        del named[name]
