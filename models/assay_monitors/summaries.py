"""The observations of one step, added up: bounded, mergeable, the same in any order."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import combinations, islice
from typing import Any, NamedTuple, Protocol, Self, TypeVar

from assay_monitors.extents import GroupSample
from assay_monitors.moments import Comoments, Moments
from assay_monitors.observations import Observation, finite, group_digest
from assay_monitors.sketch import Sketch

CHANNELS = 8
NAMES = 64
MOST_CALLS = 63
SCORE = ""

Counts = dict[str, int]


class Mergeable(Protocol):
    """Sums that take in sums of their own kind."""

    def merge(self, other: Self) -> None:
        """Take in all that the other has taken in."""


M = TypeVar("M", bound=Mergeable)
K = TypeVar("K", str, tuple[str, str])


@dataclass(slots=True)
class Summary:
    """What is kept of one window.

    Of names that a model or a trainer makes up (channels, labels, flags, telemetry) the first in
    alphabetical order are kept, 8 channels and 64 of each other kind, and those entirely.

    Attributes:
        items: how many were observed.
        nulls: items without a score.
        truncated: items that were cut.
        invalid: items in whose response nothing to score was found.
        score: moments of the scores; `scores` their quantiles.
        channels: moments by channel.
        pairs: comoments by two channels, in alphabetical order.
        characters: quantiles of the response's length; `tokens` likewise.
        length_score: comoments of the response's length (characters, else tokens) and the score.
        labels, flags, sources, scripts: how many of each name.
        calls: how many items made so many calls, `63` for 63 and more.
        groups: how far each group's scores lie apart.
        telemetry: moments of the values that the trainer sent, by name.
    """

    items: int = 0
    nulls: int = 0
    truncated: int = 0
    invalid: int = 0
    score: Moments = field(default_factory=Moments)
    scores: Sketch = field(default_factory=Sketch)
    channels: dict[str, Moments] = field(default_factory=dict)
    pairs: dict[tuple[str, str], Comoments] = field(default_factory=dict)
    characters: Sketch = field(default_factory=Sketch)
    tokens: Sketch = field(default_factory=Sketch)
    length_score: Comoments = field(default_factory=Comoments)
    labels: Counts = field(default_factory=dict)
    flags: Counts = field(default_factory=dict)
    sources: Counts = field(default_factory=dict)
    scripts: Counts = field(default_factory=dict)
    calls: Counts = field(default_factory=dict)
    groups: GroupSample = field(default_factory=GroupSample)
    telemetry: dict[str, Moments] = field(default_factory=dict)

    def add(self, observation: Observation) -> None:
        """Take one item in."""
        score = finite(observation.score)
        self.items += 1
        self.nulls += score is None
        self.truncated += "truncated" in observation.flags
        self.invalid += observation.invalid
        if observation.labels:
            _count(self.labels, observation.labels)
        if observation.flags:
            _count(self.flags, dict.fromkeys(observation.flags, 1))
        for counts, name in (
            (self.sources, observation.source),
            (self.scripts, observation.script),
            (self.calls, _calls(observation.calls)),
        ):
            if name is not None:
                counts[name] = counts.get(name, 0) + 1
                _bound(counts, NAMES)
        self._add_lengths(observation, score)
        if score is not None:
            self._add_scores(observation, score)

    def add_telemetry(self, values: Mapping[str, float]) -> None:
        """Take in what a trainer told of the step; what is not finite is left out."""
        for name, value in values.items():
            if finite(value) is not None:
                self.telemetry.setdefault(name, Moments()).add(value)
        _bound(self.telemetry, NAMES)

    def merge(self, other: "Summary") -> None:
        """Take in all that the other has taken in."""
        self.items += other.items
        self.nulls += other.nulls
        self.truncated += other.truncated
        self.invalid += other.invalid
        for counts, others in zip(self._counts(), other._counts(), strict=True):
            _count(counts, others)
        self.score.merge(other.score)
        self.scores.merge(other.scores)
        self.characters.merge(other.characters)
        self.tokens.merge(other.tokens)
        self.length_score.merge(other.length_score)
        self.groups.merge(other.groups)
        _merge(self.telemetry, other.telemetry, Moments)
        _merge(self.channels, other.channels, Moments)
        _merge(self.pairs, other.pairs, Comoments)
        self._bound_channels()

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
        values = _values(observation.channels)
        for name, value in values.items():
            self.channels.setdefault(name, Moments()).add(value)
        for one, other in combinations(values, 2) if len(values) > 1 else ():
            self.pairs.setdefault((one, other), Comoments()).add(values[one], values[other])
        if observation.group is not None:
            self.groups.add(group_digest(observation.group), {SCORE: score, **values})
        self._bound_channels()

    def _bound_channels(self) -> None:
        if len(self.channels) > CHANNELS:
            _bound(self.channels, CHANNELS)
            for pair in list(self.pairs):
                if not set(pair) <= self.channels.keys():
                    del self.pairs[pair]

    def _counts(self) -> tuple[Counts, ...]:
        return (self.labels, self.flags, self.sources, self.scripts, self.calls)


class Point(NamedTuple):
    """One step of a series, and what was seen in it."""

    step: int
    summary: Summary


def summarise(observations: Iterable[Observation]) -> Summary:
    """The summary of some observations, in whatever order."""
    summary = Summary()
    for observation in observations:
        summary.add(observation)
    return summary


def _values(channels: Mapping[str, float | None]) -> dict[str, float]:
    known = {
        name: value for name in sorted(channels) if (value := finite(channels[name])) is not None
    }
    return known if len(known) <= CHANNELS else dict(islice(known.items(), CHANNELS))


def _calls(calls: int | None) -> str | None:
    return None if calls is None else str(max(0, min(MOST_CALLS, calls)))


def _count(counts: Counts, more: Mapping[str, int]) -> None:
    for name, times in more.items():
        counts[name] = counts.get(name, 0) + times
    _bound(counts, NAMES)


def _merge(mine: dict[K, M], others: Mapping[K, M], empty: type[M]) -> None:
    for name, other in others.items():
        mine.setdefault(name, empty()).merge(other)
    _bound(mine, NAMES)


def _bound(named: dict[K, Any], limit: int) -> None:
    if len(named) > limit:
        for name in sorted(named)[limit:]:
            del named[name]
