"""The workloads, divided into scenarios: a scenario is one load on one server.

The fields of `Scenario` and `Scale` are written to results.json under their names.
"""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Literal

from benchmarks.texts import GROUP_SIZE, ModelName

Workload = Literal["fresh", "keep-alive", "bulk", "idle", "group", "cached", "storm"]
Phase = Literal["encoder", "decoder", "cache"]
Corpus = Literal["singles", "bulk", "idle", "groups", "cached", "storm"]

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
GROUP_SCENARIOS = 2


@dataclass(frozen=True, slots=True)
class Scenario:
    """A load: `per_request` items of `corpus` in a request, `callers` requests at once.

    It ends after `seconds`, or after a number of `requests`. `long` scenarios take so long that
    they are measured less often.
    """

    name: str
    workload: Workload
    _: KW_ONLY
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
        """The checkpoint that is asked."""
        return "decoder" if self.phase == "decoder" else "encoder"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """The amount of measurement.

    Attributes:
        seconds: of a scenario.
        repeats: of each scenario.
        long_repeats: of each long scenario.
        concurrency: numbers of callers of the workload `fresh`.
        keep_alive: numbers of callers of the workload `keep-alive`.
        bulk: items per request of the workload `bulk`.
        singles: items of the corpus of single items.
        limit_items: items that the bare loops compute.
        groups: groups that a scenario asks.
        patience: seconds that a scenario may last; a system that would take longer at its own rate
            skips it.
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


def scenarios_of(workloads: Sequence[Workload], scale: Scale) -> list[Scenario]:
    """Return the scenarios of some workloads, in the order they are measured."""
    return [scenario for workload in workloads for scenario in _scenarios(workload, scale)]


def _scenarios(workload: Workload, scale: Scale) -> list[Scenario]:
    seconds = scale.seconds
    match workload:
        case "fresh":
            return [_single(workload, callers, seconds) for callers in scale.concurrency]
        case "keep-alive":
            return [_single(workload, callers, seconds) for callers in scale.keep_alive]
        case "bulk":
            return [_bulk(size, seconds) for size in scale.bulk]
        case "idle":
            return [_idle(seconds)]
        case "group":
            return _groups(scale)
        case "cached":
            return _cached(seconds)
        case "storm":
            return [_storm(seconds)]


def _single(workload: Literal["fresh", "keep-alive"], callers: int, seconds: float) -> Scenario:
    return Scenario(
        f"{workload}-{callers}",
        workload,
        phase="encoder",
        corpus="singles",
        callers=callers,
        per_request=1,
        fresh=workload == "fresh",
        seconds=seconds,
        long=callers >= LONG_CALLERS,
    )


def _bulk(size: int, seconds: float) -> Scenario:
    long = size >= LONG_CALLERS
    return Scenario(
        f"bulk-{size}",
        "bulk",
        phase="encoder",
        corpus="bulk",
        callers=1 if long else BULK_CALLERS,
        per_request=size,
        fresh=False,
        seconds=seconds,
        requests=1 if long else None,
        long=long,
    )


def _idle(seconds: float) -> Scenario:
    return Scenario(
        "idle",
        "idle",
        phase="encoder",
        corpus="idle",
        callers=1,
        per_request=1,
        fresh=False,
        seconds=seconds,
    )


def _groups(scale: Scale) -> list[Scenario]:
    def scenario(name: str, *, callers: int, per_request: int, requests: int) -> Scenario:
        return Scenario(
            name,
            "group",
            phase="decoder",
            corpus="groups",
            callers=callers,
            per_request=per_request,
            fresh=per_request == 1,
            seconds=scale.seconds,
            requests=requests,
            long=True,
        )

    items = scale.groups * GROUP_SIZE
    return [
        scenario("group-bulk", callers=1, per_request=GROUP_SIZE, requests=scale.groups),
        scenario("group-singles", callers=GROUP_SIZE, per_request=1, requests=items),
    ]


def _cached(seconds: float) -> list[Scenario]:
    def scenario(name: str, *, callers: int, per_request: int, fresh: bool) -> Scenario:
        return Scenario(
            name,
            "cached",
            phase="cache",
            corpus="cached",
            callers=callers,
            per_request=per_request,
            fresh=fresh,
            seconds=seconds,
        )

    return [
        scenario("cached-keep-alive", callers=CACHED_CALLERS, per_request=1, fresh=False),
        scenario("cached-fresh", callers=CACHED_CALLERS, per_request=1, fresh=True),
        scenario("cached-bulk", callers=BULK_CALLERS, per_request=CACHED_BULK, fresh=False),
    ]


def _storm(seconds: float) -> Scenario:
    requests = STORM_DISTINCT * STORM_TIMES
    return Scenario(
        "storm",
        "storm",
        phase="cache",
        corpus="storm",
        callers=requests,
        per_request=1,
        fresh=True,
        seconds=seconds,
        requests=requests,
    )
