"""Reply types: plain values that every route and dialect shares, and the words of the wire."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

Clock = Callable[[], float]

Lane = Literal["interactive", "training", "bulk"]
LANES: tuple[Lane, ...] = get_args(Lane)
"""The priority lanes, the highest first."""

Source = Literal["computed", "cache", "shared", "rule"]


@dataclass(frozen=True, slots=True)
class ItemFailure:
    """Why an item has no score."""

    code: str
    detail: str


@dataclass(slots=True)
class ItemResult:
    """One item's outcome. With `status` error, `score`, `raw` and every channel are null.

    Not frozen, because there is one for every item and freezing makes it several times as dear.
    """

    index: int
    id: str | None
    group: str | None
    status: Literal["ok", "error"]
    score: float | None
    raw: float | None
    channels: dict[str, float | None]
    flags: list[str]
    tokens: int
    source: Source | None
    details: dict[str, Any]
    error: ItemFailure | None


@dataclass(frozen=True, slots=True)
class GroupSummary:
    """The items of one prompt. `ranks` follow the group's items in request order, 1 is best, ties
    share a rank, and an item without a score has none. `std` is the population's.
    """

    group: str
    n: int
    scored: int
    mean: float | None
    std: float | None
    ranks: list[int | None]
    zero_variance: bool


@dataclass(frozen=True, slots=True)
class Usage:
    """What the request cost: items by source, and tokens of all of them."""

    items: int
    tokens: int
    computed: int
    cached: int
    shared: int
    rule: int
    failed: int


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds: the whole request, and the longest wait of any of its items in each phase."""

    prepare_ms: float
    queue_ms: float
    predict_ms: float
    total_ms: float


@dataclass(frozen=True, slots=True)
class ScoreReply:
    """The answer to one scoring request, results in request order."""

    id: str
    model: str
    fingerprint: str
    results: list[ItemResult]
    groups: list[GroupSummary] | None
    usage: Usage
    timing: Timing


@dataclass(frozen=True, slots=True)
class Ranked:
    """One candidate's place. `margin` is the distance to the next rank; none for the last one and
    for a candidate that could not be scored. `confidence` is how likely it is that this candidate,
    and not the next, is the right one of the two, where both have a raw and the card is calibrated.
    """

    index: int
    score: float | None
    margin: float | None
    confidence: float | None


@dataclass(frozen=True, slots=True)
class BestOfNReply:
    """The candidates of one prompt, best first. `best` is null when the server abstained."""

    model: str
    fingerprint: str
    best: int | None
    ranking: list[Ranked]
    ties: list[list[int]]
    abstained: bool
    results: list[ItemResult]
