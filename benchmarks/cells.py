"""The workloads, cut into cells: one cell is one load on one server."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.texts import GROUP_SIZE, ModelName

Workload = Literal["fresh", "keep-alive", "bulk", "idle", "group", "cached", "storm"]
Phase = Literal["encoder", "decoder", "cache"]
Corpus = Literal["singles", "bulk", "idle", "groups", "cached", "storm"]
Shape = tuple[Workload, Phase, Corpus]

WORKLOADS: dict[Workload, str] = {
    "fresh": "one item per request, a new connection for each",
    "keep-alive": "one item per request, connections kept",
    "bulk": "64 and 1,024 items per request",
    "idle": "one short item at a time on an idle server",
    "group": "8 candidates of 300 tokens under one prompt of 700",
    "cached": "items whose scores are in the cache (Assay, beside a bare endpoint)",
    "storm": "the same items ten times at once (Assay)",
}
BULK_CALLERS = 4
CACHED_CALLERS = 64
CACHED_BULK = 1024
STORM_DISTINCT, STORM_TIMES = 64, 10
LONG_CALLERS = 1024
GROUP_CELLS = 2


@dataclass(frozen=True, slots=True)
class Cell:
    """One load.

    `per_request` items of `corpus` in a request, `callers` requests at once, for `seconds` or for
    so many `requests`. `long` cells take so long that they are measured less often.
    """

    name: str
    workload: Workload
    phase: Phase
    corpus: Corpus
    callers: int
    per_request: int
    fresh: bool
    seconds: float
    requests: int | None = None
    long: bool = False

    @property
    def model(self) -> ModelName:
        """The checkpoint it asks."""
        return "decoder" if self.phase == "decoder" else "encoder"


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured. `seconds` a cell, `repeats` of each cell, fewer of the long ones; items
    in the corpora; groups; `patience`, how many seconds a cell may last at most: what a system
    cannot do in that time by its own rate it is spared.
    """

    seconds: float = 3.0
    repeats: int = 3
    long_repeats: int = 1
    concurrency: tuple[int, ...] = (1, 16, 256, 1024)
    keep_alive: tuple[int, ...] = (1, 16, 256, 1024)
    bulk: tuple[int, ...] = (64, 1024)
    singles: int = 3072
    limit_items: int = 512
    groups: int = 2
    patience: float = 120.0


QUICK = Scale(
    seconds=3.0,
    repeats=1,
    concurrency=(16, 256),
    keep_alive=(16,),
    bulk=(64,),
    singles=1024,
    limit_items=128,
    groups=1,
)


def cells_of(workloads: Sequence[Workload], scale: Scale) -> list[Cell]:
    """The cells of some workloads, in the order they are measured."""
    found: list[Cell] = []
    for workload in workloads:
        found += _cells(workload, scale)
    return found


def _cells(workload: Workload, scale: Scale) -> list[Cell]:
    seconds = scale.seconds
    match workload:
        case "fresh":
            return [_single(workload, callers, seconds) for callers in scale.concurrency]
        case "keep-alive":
            return [_single(workload, callers, seconds) for callers in scale.keep_alive]
        case "bulk":
            return [_bulk(size, seconds) for size in scale.bulk]
        case "idle":
            return [Cell("idle", workload, "encoder", "idle", 1, 1, False, seconds)]
        case "group":
            return _groups(scale)
        case "cached":
            return _cached(seconds)
        case "storm":
            storm = STORM_DISTINCT * STORM_TIMES
            return [Cell("storm", workload, "cache", "storm", storm, 1, True, seconds, storm)]


def _single(workload: Literal["fresh", "keep-alive"], callers: int, seconds: float) -> Cell:
    long = callers >= LONG_CALLERS
    name = f"{workload}-{callers}"
    fresh = workload == "fresh"
    return Cell(name, workload, "encoder", "singles", callers, 1, fresh, seconds, None, long)


def _bulk(size: int, seconds: float) -> Cell:
    long = size >= LONG_CALLERS
    callers = 1 if long else BULK_CALLERS
    requests = 1 if long else None
    return Cell(
        f"bulk-{size}", "bulk", "encoder", "bulk", callers, size, False, seconds, requests, long
    )


def _groups(scale: Scale) -> list[Cell]:
    items = scale.groups * GROUP_SIZE
    shape: Shape = ("group", "decoder", "groups")
    return [
        Cell("group-bulk", *shape, 1, GROUP_SIZE, False, scale.seconds, scale.groups, True),
        Cell("group-singles", *shape, GROUP_SIZE, 1, True, scale.seconds, items, True),
    ]


def _cached(seconds: float) -> list[Cell]:
    shape: Shape = ("cached", "cache", "cached")
    return [
        Cell("cached-keep-alive", *shape, CACHED_CALLERS, 1, False, seconds),
        Cell("cached-fresh", *shape, CACHED_CALLERS, 1, True, seconds),
        Cell("cached-bulk", *shape, BULK_CALLERS, CACHED_BULK, False, seconds),
    ]
