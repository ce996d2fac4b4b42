"""The workloads, divided into scenarios: a scenario is one load on one server.

The fields of `Scenario` and `Scale` are written to results.json under their names. The bare
endpoint of the workload `cached` is an endpoint of the same web stack that sends Assay's replies
without any computation.
"""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Literal

from benchmarks.texts import GROUP_SIZE, ModelName

Workload = Literal["fresh", "keep-alive", "bulk", "idle", "group", "cached", "stampede"]
Phase = Literal["encoder", "decoder", "cache"]
Corpus = Literal["singles", "bulk", "idle", "groups", "cached", "stampede"]

WORKLOADS: dict[Workload, str] = {
    "fresh": "one item per request, a new connection for each",
    "keep-alive": "one item per request, connections kept",
    "bulk": "64 and 1,024 items per request",
    "idle": "one short item at a time on an idle server",
    "group": "8 candidates of 300 tokens under one prompt of 700",
    "cached": "items whose scores are in the cache (Assay, beside a bare endpoint)",
    "stampede": "the same items ten times at once (Assay)",
}
BULK_CONCURRENCY = 4
CACHED_CONCURRENCY = 64
CACHED_BULK = 1024
STAMPEDE_DISTINCT, STAMPEDE_TIMES = 64, 10
MIN_LONG = 1024
"""The concurrency, or the items per request, from which a scenario is `long`."""
GROUP_SCENARIOS = 2
"""The scenarios of the workload `group`; each has groups of its own."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A load: `per_request` items of `corpus` in a request, `concurrency` requests at once.

    With `new_connection` each request has a connection of its own; else connections are kept.
    It ends after `seconds`, or after a number of `requests`. `long` scenarios take so long that
    they are measured less often.
    """

    name: str
    workload: Workload
    _: KW_ONLY
    phase: Phase
    corpus: Corpus
    concurrency: int
    per_request: int
    new_connection: bool
    seconds: float
    requests: int | None = None
    long: bool = False

    @property
    def model(self) -> ModelName:
        """The checkpoint that is queried."""
        return "decoder" if self.phase == "decoder" else "encoder"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """The amount of measurement.

    Attributes:
        seconds: of a scenario.
        repeats: of each scenario.
        long_repeats: of each long scenario.
        concurrency: requests at once, for each scenario of the workload `fresh`.
        keep_alive: the same of the workload `keep-alive`.
        bulk: items per request of the workload `bulk`.
        singles: items of the corpus of single items.
        limit_items: items that the bare loops compute. A bare loop runs the model without a server:
            its rate is the limit that servers are compared with.
        groups: groups in each scenario of the workload `group`.
        max_seconds: the longest that a scenario may last; a system that would take longer at its
            measured rate skips it.
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
    max_seconds: float = 120.0


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
            return [_single(workload, concurrency, seconds) for concurrency in scale.concurrency]
        case "keep-alive":
            return [_single(workload, concurrency, seconds) for concurrency in scale.keep_alive]
        case "bulk":
            return [_bulk(size, seconds) for size in scale.bulk]
        case "idle":
            return [_idle(seconds)]
        case "group":
            return _groups(scale)
        case "cached":
            return _cached(seconds)
        case "stampede":
            return [_stampede(seconds)]


def _single(workload: Literal["fresh", "keep-alive"], concurrency: int, seconds: float) -> Scenario:
    return Scenario(
        f"{workload}-{concurrency}",
        workload,
        phase="encoder",
        corpus="singles",
        concurrency=concurrency,
        per_request=1,
        new_connection=workload == "fresh",
        seconds=seconds,
        long=concurrency >= MIN_LONG,
    )


def _bulk(size: int, seconds: float) -> Scenario:
    long = size >= MIN_LONG
    return Scenario(
        f"bulk-{size}",
        "bulk",
        phase="encoder",
        corpus="bulk",
        concurrency=1 if long else BULK_CONCURRENCY,
        per_request=size,
        new_connection=False,
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
        concurrency=1,
        per_request=1,
        new_connection=False,
        seconds=seconds,
    )


def _groups(scale: Scale) -> list[Scenario]:
    def scenario(name: str, *, concurrency: int, per_request: int, requests: int) -> Scenario:
        return Scenario(
            name,
            "group",
            phase="decoder",
            corpus="groups",
            concurrency=concurrency,
            per_request=per_request,
            new_connection=per_request == 1,
            seconds=scale.seconds,
            requests=requests,
            long=True,
        )

    items = scale.groups * GROUP_SIZE
    return [
        scenario("group-bulk", concurrency=1, per_request=GROUP_SIZE, requests=scale.groups),
        scenario("group-singles", concurrency=GROUP_SIZE, per_request=1, requests=items),
    ]


def _cached(seconds: float) -> list[Scenario]:
    def scenario(
        name: str, *, concurrency: int, per_request: int, new_connection: bool
    ) -> Scenario:
        return Scenario(
            name,
            "cached",
            phase="cache",
            corpus="cached",
            concurrency=concurrency,
            per_request=per_request,
            new_connection=new_connection,
            seconds=seconds,
        )

    return [
        scenario(
            "cached-keep-alive", concurrency=CACHED_CONCURRENCY, per_request=1, new_connection=False
        ),
        scenario(
            "cached-fresh", concurrency=CACHED_CONCURRENCY, per_request=1, new_connection=True
        ),
        scenario(
            "cached-bulk",
            concurrency=BULK_CONCURRENCY,
            per_request=CACHED_BULK,
            new_connection=False,
        ),
    ]


def _stampede(seconds: float) -> Scenario:
    requests = STAMPEDE_DISTINCT * STAMPEDE_TIMES
    return Scenario(
        "stampede",
        "stampede",
        phase="cache",
        corpus="stampede",
        concurrency=requests,
        per_request=1,
        new_connection=True,
        seconds=seconds,
        requests=requests,
    )
