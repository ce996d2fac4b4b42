"""What the server replies, as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

OnError = Literal["raise", "none"]
Priority = Literal["interactive", "training", "bulk"]
Status = Literal["ok", "warn", "critical"]
Severity = Literal["warn", "critical"]


@dataclass(frozen=True)
class ItemError:
    """Why an item has no score: a stable `code`, and a `detail` that says how to mend it."""

    code: str
    detail: str


@dataclass(frozen=True)
class Result:
    """One item's result.

    Attributes:
        index: the item's place in the request.
        score: the number served; None where the item could not be scored.
        raw: the model's own output before shaping; None where a rule decided or nothing could.
        channels: the named parts of the reward.
        flags: what happened on the way, such as `truncated` or `substituted`.
        tokens: the item's length in tokens, where the server counted it.
        source: `computed`, `cache`, `shared` or `rule`.
        error: set where `status` is `error`.
    """

    index: int
    id: str | None
    group: str | None
    status: Literal["ok", "error"]
    score: float | None
    raw: float | None
    channels: Mapping[str, float | None]
    flags: tuple[str, ...]
    tokens: int | None
    source: str | None
    details: Mapping[str, Any]
    error: ItemError | None


@dataclass(frozen=True)
class Group:
    """The items of one prompt, together.

    Attributes:
        n: how many items the group has; `scored`: how many of them have a score.
        mean: of the scores, None where there is none; `std` likewise.
        ranks: one for each item of the group in request order, 1 for the best; None where it has
            no score.
        zero_variance: whether the scores cannot be told apart, so that the group teaches nothing.
    """

    group: str
    n: int
    scored: int
    mean: float | None
    std: float | None
    ranks: tuple[int | None, ...]
    zero_variance: bool


@dataclass(frozen=True)
class Usage:
    """What a request cost: items and tokens, and where the results came from. `rule` counts those
    that needed no forward pass, `failed` those without a score of their own."""

    items: int
    tokens: int
    computed: int
    cached: int
    shared: int
    rule: int
    failed: int


@dataclass(frozen=True)
class Timing:
    """Where the server's time went, in milliseconds."""

    prepare_ms: float
    queue_ms: float
    predict_ms: float
    total_ms: float


@dataclass(frozen=True)
class ScoreReply:
    """The reply to `score`: one result for each item, in the order of the items.

    Attributes:
        model: what scored, as `name@version`.
        fingerprint: the digest of all that decides the numbers.
        groups: empty where no item names a group.
    """

    id: str
    model: str
    fingerprint: str
    results: tuple[Result, ...]
    groups: tuple[Group, ...]
    usage: Usage
    timing: Timing

    @property
    def scores(self) -> list[float | None]:
        """The scores in the order of the items; None where an item could not be scored."""
        return [result.score for result in self.results]

    @property
    def failed(self) -> tuple[Result, ...]:
        """The results without a score."""
        return tuple(result for result in self.results if result.score is None)


@dataclass(frozen=True)
class Ranked:
    """One candidate's place: `margin` is the distance to the next rank, None where there is no
    next one. `score` is None for a candidate that could not be scored. `confidence` is how likely
    this one, and not the next, is the right one of the two; None where the model does not know."""

    index: int
    score: float | None
    margin: float | None
    confidence: float | None = None


@dataclass(frozen=True)
class BestOfN:
    """The reply to `best_of_n`.

    Attributes:
        best: the index of the best candidate; None where the server chose none.
        ranking: best first.
        ties: indices of candidates too close to tell apart.
        abstained: whether the best candidate fell below `abstain_below` or `min_confidence`, or
            there was none.
        results: one for each candidate, in the order of the candidates.
    """

    model: str
    fingerprint: str
    best: int | None
    ranking: tuple[Ranked, ...]
    ties: tuple[tuple[int, ...], ...]
    abstained: bool
    results: tuple[Result, ...]


@dataclass(frozen=True)
class Model:
    """A model that the server has. `card` holds everything the server told of it."""

    id: str
    name: str
    version: int
    family: str
    title: str | None
    default: bool | None
    state: str | None
    card: Mapping[str, Any]


@dataclass(frozen=True)
class RuleState:
    """A rule at the latest step of a model's scores in one split.

    Attributes:
        severity: None where the rule is silent: nothing passed a threshold, or too little was seen.
        since_step: the step since which it fires without a break.
        value: what was measured; `threshold`: what it passed, in the same unit.
        about: the channels, labels or scripts it is about.
        evidence: the other numbers that it rests on.
        thresholds: the rule's own.
        cannot_tell: what the rule cannot tell apart.
    """

    rule: str
    severity: Severity | None
    since_step: int | None
    value: float | None
    threshold: float | None
    about: tuple[str, ...]
    evidence: Mapping[str, float | None]
    thresholds: Mapping[str, Any]
    cannot_tell: str


@dataclass(frozen=True)
class ChannelHealth:
    """A channel, or the `score`, at the latest step: `mean` and `std` of its items and the share of
    them in which it is null; its `average` over the run, the highest that was, and when."""

    mean: float | None
    std: float | None
    average: float
    peak: float
    peak_step: int
    null_share: float


@dataclass(frozen=True)
class StreamHealth:
    """The health of one model's scores in one split, at the latest `step`. Without a model and a
    split: of what the trainer told, where nothing was scored for the run."""

    model: str | None
    split: str | None
    step: int
    status: Status
    rules: tuple[RuleState, ...]
    channels: Mapping[str, ChannelHealth]


@dataclass(frozen=True)
class Interval:
    """A value, its 95 % interval, and from how many values it was estimated."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class GoldMeasure:
    """How well the reward agreed with gold at a step; None is what was not measured.

    Attributes:
        proxy: the mean reward; `gold`: the mean of the gold source.
        accuracy: share of pairs in which the reward prefers what gold prefers.
        loss: Bradley-Terry, in nats.
        rank: Spearman's correlation of reward and gold.
    """

    step: int
    proxy: Interval | None
    gold: Interval | None
    accuracy: Interval | None
    loss: Interval | None
    rank: Interval | None
    gradient_norm: float | None


@dataclass(frozen=True)
class Advice:
    """What gold says to consider (`raise_regularisation`, `reset_reference`, `stop`), on which
    grounds, and the best step before it at which nothing was wrong."""

    step: int
    action: str
    grounds: tuple[str, ...]
    healthy_step: int | None


@dataclass(frozen=True)
class GoldHealth:
    """A gold source's measurements by rising step, and its advice; None while nothing is wrong."""

    source: str
    points: tuple[GoldMeasure, ...]
    advice: Advice | None


@dataclass(frozen=True)
class RunHealth:
    """The health of a training run: the worst `status` of its streams and gold sources."""

    run: str
    status: Status
    streams: tuple[StreamHealth, ...]
    gold: tuple[GoldHealth, ...]

    @property
    def firing(self) -> tuple[RuleState, ...]:
        """The rules that fire, of all streams."""
        return tuple(rule for one in self.streams for rule in one.rules if rule.severity)
