"""Types that all parts of the service share: reply types, names of fields, lanes, and the clock."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

Clock = Callable[[], float]
"""Returns the time in seconds; tests pass one of their own."""

VALUE_ERROR = "Value error, "
"""The beginning of Pydantic's message of a check of ours; the reply leaves it out."""

_ABSENT = object()

Scope = Literal["score", "read", "record", "admin"]
"""A right of an API key.

`score`: to score items, and to record their results in a run; `read`: to read runs and metrics;
`record`: to record telemetry and gold, and to edit runs of its own; `admin`: to do all of it to any
run, and to load and unload models. A key with `admin` has all scopes.
"""
SCOPES: frozenset[Scope] = frozenset(get_args(Scope))

Lane = Literal["interactive", "training", "bulk"]
LANES: tuple[Lane, ...] = get_args(Lane)
"""The priority lanes, the highest first."""

Source = Literal["computed", "cache", "shared", "rule"]
"""The origin of a score.

`computed`: a forward pass for this item; `cache`: the score cache; `shared`: computed by an
identical item in flight; `rule`: no forward pass was needed.
"""


@dataclass(frozen=True, slots=True)
class Share:
    """The share of one API key's name: tokens a second, and concurrent scoring requests.

    None means without limit.
    """

    rate: float | None = None
    concurrency: int | None = None


NO_SHARE = Share()


@dataclass(frozen=True, slots=True)
class Caller:
    """The sender of a request: the name of its API key, and the rights that the key gives.

    Where the server has no keys, or the path needs none, the name is empty. `is_trusted`: whether
    it may see names and reasons; a request without a key to a server with keys may not. `share` is
    its share of the server.
    """

    name: str = ""
    scopes: frozenset[Scope] = SCOPES
    is_trusted: bool = True
    share: Share = NO_SHARE

    @property
    def sees_reasons(self) -> bool:
        """Whether it may see why something failed on the machine: addresses, paths, programs."""
        return not self.scopes.isdisjoint(("read", "admin"))


NO_CALLER = Caller()
STRANGER = Caller(scopes=frozenset(), is_trusted=False)
"""The sender of a request without a key to a path that needs none, of a server with keys."""


@dataclass(frozen=True, slots=True)
class InvalidValue:
    """A value of a request that JSON does not have: NaN, an infinity, half of a surrogate pair.

    It takes the value's place in the parsed body, so that only its own item or field is refused.
    `place` is the path of the field, such as `items.1.text`.
    """

    place: str
    problem: str


@dataclass(frozen=True, slots=True)
class ItemFailure:
    """The reason why an item has no score."""

    code: str
    detail: str


@dataclass(slots=True)
class ItemResult:
    """One item's outcome. With `status` error, `score`, `raw` and every channel are null.

    Not frozen: a frozen dataclass takes several times as long to create, and each item has one.
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
    """Statistics of a group: the items of one prompt.

    `ranks` are in request order; 1 is best, ties share a rank, and an item without a score has
    none. `std` is the population standard deviation.
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
    """The cost of a request: items by source, and the tokens of all items."""

    items: int
    tokens: int
    computed: int
    cached: int
    shared: int
    rule: int
    failed: int


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds of the whole request, and of its slowest item in each phase."""

    prepare_ms: float
    queue_ms: float
    predict_ms: float
    total_ms: float


@dataclass(frozen=True, slots=True)
class ScoreReply:
    """The reply to one scoring request, with the results in request order."""

    id: str
    model: str
    fingerprint: str
    results: list[ItemResult]
    groups: list[GroupSummary] | None
    usage: Usage
    timing: Timing


@dataclass(frozen=True, slots=True)
class RankedCandidate:
    """One candidate of a ranking.

    `margin` is the score's distance to the next rank; null for the last candidate and for one that
    could not be scored. `confidence` is the probability that this candidate is better than the
    next, if both have a raw and the card is calibrated.
    """

    index: int
    score: float | None
    margin: float | None
    confidence: float | None


@dataclass(frozen=True, slots=True)
class BestOfNReply:
    """The candidates of one prompt, best first. `best` is null if the server abstained."""

    model: str
    fingerprint: str
    best: int | None
    ranking: list[RankedCandidate]
    ties: list[list[int]]
    abstained: bool
    results: list[ItemResult]


def field_name(problem: Mapping[str, Any], place: Sequence[str | int], value: object) -> str:
    """Return the name of a field as its sender wrote it, such as `items.0.prompt`.

    Args:
        problem: an error of Pydantic, with its input.
        place: its location below `value`, which also names the branches of unions.
        value: what was sent. A part of the place that it does not have is a branch, but for the
            last part of a field that is missing.
    """
    is_missing = problem["type"] == "missing" or (bool(place) and problem["input"] is None)
    parts: list[str] = []
    for part in place[:-1] if is_missing else place:
        inner = _part_of(value, part)
        if inner is not _ABSENT:
            parts.append(str(part))
            value = inner
    return ".".join([*parts, str(place[-1])] if is_missing else parts)


def _part_of(value: object, part: str | int) -> object:
    if isinstance(value, Mapping):
        return value.get(part, _ABSENT)
    if isinstance(value, list) and isinstance(part, int) and part < len(value):
        return value[part]
    return _ABSENT
