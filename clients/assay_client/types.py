"""Replies of the server, as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

OnError = Literal["raise", "none"]
Priority = Literal["interactive", "training", "bulk"]
Severity = Literal["warn", "critical"]


@dataclass(frozen=True)
class Response:
    """An HTTP response. The names of its headers are in lower case."""

    status_code: int
    headers: Mapping[str, str]
    content: bytes = field(repr=False)


@dataclass(frozen=True)
class ItemError:
    """The reason why an item has no score: a stable `code`, and a `detail` that says how to fix
    it."""

    code: str
    detail: str


@dataclass(frozen=True)
class Result:
    """The result of one item.

    Attributes:
        index: the item's place in the request.
        score: the number served; None if the item could not be scored.
        raw: the model's own output before shaping; None if a rule decided or the item failed.
        channels: the named parts of the reward.
        flags: notes on how the score was made, such as `truncated` or `substituted`.
        tokens: the item's length in tokens, if the server counted it.
        source: `computed`, `cache`, `shared` or `rule`.
        error: set if `status` is `error`.
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
    """Statistics of the items of one prompt.

    Attributes:
        n: the number of items in the group; `scored`: the number of them that have a score.
        mean: of the scores, None if there is none; `std` likewise.
        ranks: one for each item of the group in request order, 1 for the best; None if it has no
            score.
        zero_variance: whether the scores are all equal, so that the group teaches nothing.
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
    """The cost of a request: items, tokens, and the number of results from each source.

    `rule` counts results that needed no forward pass, `failed` those without a score of their own.
    """

    items: int
    tokens: int
    computed: int
    cached: int
    shared: int
    rule: int
    failed: int


@dataclass(frozen=True)
class Timing:
    """The server's time by stage, in milliseconds."""

    prepare_ms: float
    queue_ms: float
    predict_ms: float
    total_ms: float


@dataclass(frozen=True)
class ScoreReply:
    """The reply to `score`: one result for each item, in the order of the items.

    Attributes:
        model: the model that scored, as `name@version`.
        fingerprint: the digest of everything that determines the numbers.
        groups: empty if no item names a group.
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
        """The scores in the order of the items; None if an item could not be scored."""
        return [result.score for result in self.results]

    @property
    def failed(self) -> tuple[Result, ...]:
        """The results without a score."""
        return tuple(result for result in self.results if result.score is None)


@dataclass(frozen=True)
class RankedCandidate:
    """A candidate's place in the ranking.

    Attributes:
        score: None for a candidate that could not be scored.
        margin: the distance to the next rank, None if there is no next one.
        confidence: the probability that this candidate is better than the next; None if the model
            does not estimate it.
    """

    index: int
    score: float | None
    margin: float | None
    confidence: float | None = None


@dataclass(frozen=True)
class BestOfN:
    """The reply to `best_of_n`.

    Attributes:
        best: the index of the best candidate; None if the server chose none.
        ranking: best first.
        ties: indices of candidates whose scores are too close to distinguish them.
        abstained: whether no candidate has a score, the best fell below `abstain_below` or
            `min_confidence`, or with `min_confidence` its confidence is unknown or it is tied.
        results: one for each candidate, in the order of the candidates.
    """

    model: str
    fingerprint: str
    best: int | None
    ranking: tuple[RankedCandidate, ...]
    ties: tuple[tuple[int, ...], ...]
    abstained: bool
    results: tuple[Result, ...]


@dataclass(frozen=True)
class Model:
    """A model that the server has. `card` holds everything that the server returned about it."""

    id: str
    name: str
    version: int
    family: str
    title: str | None
    default: bool | None
    state: str | None
    card: Mapping[str, Any]


@dataclass(frozen=True)
class RuleProgress:
    """The data that a rule has seen in the latest steps, of those that it needs to decide.

    Attributes:
        unit: `items`, `groups`, `labels` or `steps`.
    """

    seen: int
    needed: int
    unit: str


@dataclass(frozen=True)
class RuleState:
    """A rule at the latest step of a model's scores in one split.

    Attributes:
        state: `fired`; `quiet`: nothing passed a threshold; `waiting` for more data; `not_fed`: its
            input never came.
        severity: None unless it fired.
        progress: the data that it has, of those that it needs.
        since_step: the step since which it fires without a break.
        value: the measured value; `threshold`: the one that it passed, in the same unit.
        about: the channels, labels or scripts it is about.
        evidence: the other numbers that it rests on.
        thresholds: the rule's own.
        limits: what the rule cannot distinguish.
    """

    rule: str
    state: str
    severity: str | None
    progress: RuleProgress
    since_step: int | None
    value: float | None
    threshold: float | None
    about: tuple[str, ...]
    evidence: Mapping[str, float | None]
    thresholds: Mapping[str, Any]
    limits: str


@dataclass(frozen=True)
class ChannelHealth:
    """A channel, or the `score`, at the latest step.

    Attributes:
        mean: of its items; `std` likewise.
        average: its mean over the run; `peak`: the highest that it was, and `peak_step` when.
        null_share: the share of items in which it is null.
    """

    mean: float | None
    std: float | None
    average: float
    peak: float
    peak_step: int
    null_share: float


@dataclass(frozen=True)
class StreamHealth:
    """The health of one model's scores in one split, at the latest `step`.

    Without a model and a split it is the health of the trainer's telemetry, for a run without
    scores.
    """

    model: str | None
    split: str | None
    step: int
    status: str
    rules: tuple[RuleState, ...]
    channels: Mapping[str, ChannelHealth]


@dataclass(frozen=True)
class Interval:
    """A value, its 95 % interval, and the number of values from which it was estimated."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class GoldMeasure:
    """The agreement of the reward with gold at a step; None for each part that was not measured.

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
    """The action that gold advises, its grounds, and the last good step.

    Attributes:
        action: `raise_regularisation`, `reset_reference` or `stop`.
        healthy_step: the best earlier step at which nothing was wrong.
    """

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
    """The health of a training run: the worst `status` of its streams and gold sources.

    It is `waiting` while nothing is assessed, as right after the first score. A newer server may
    send other statuses, states and severities than those that this client knows. `truncated`: there
    are more streams or sources than a reply holds; `damaged`: rows that could not be read.
    """

    run: str
    status: str
    streams: tuple[StreamHealth, ...]
    gold: tuple[GoldHealth, ...]
    note: str | None = None
    truncated: bool = False
    damaged: int = 0

    @property
    def firing(self) -> tuple[RuleState, ...]:
        """The rules that fire, of all streams."""
        return tuple(rule for stream in self.streams for rule in stream.rules if rule.severity)
