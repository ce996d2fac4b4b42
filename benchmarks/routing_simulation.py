"""A simulation of routing: by prompt, round robin, and to the least outstanding tokens.

Groups of a GRPO run are sent as single requests to replicas that cache, batch and share. Compared
are duplicate forward passes, cache hits, latency and balance, over several seeds, with and without
a Redis that all replicas share, and with its single flight. Times are simulated, so the result
depends on the seeds alone.

Example:
    python -m benchmarks.routing_simulation --replicas 8 --seeds 5
    python -m benchmarks.routing_simulation --publish
"""

import argparse
import hashlib
from abc import ABC, abstractmethod
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple, get_args

import simpy
from scipy import stats

from benchmarks.load import percentile
from benchmarks.routing_replicas import Process, Replica, ReplicaConfig, SharedRedis, Sharing
from benchmarks.routing_trace import Arrival, TraceConfig, draw_trace

POINTS = 128
MAX_LOAD = 1.25
FIGURE = Path("docs/images/routing.svg")
SHARED: Mapping[Sharing, str] = {
    "none": "nothing",
    "redis": "Redis",
    "flight": "Redis, single flight",
}


class Router(ABC):
    """The choice of a replica for each request."""

    @abstractmethod
    def choose(self, arrival: Arrival, replicas: Sequence[Replica]) -> Replica:
        """Return the replica of a request."""


class ByPrompt(Router):
    """Consistent hashing of the prompt: all completions of a group meet in one replica."""

    def __init__(self, count: int) -> None:
        self._ring = sorted(
            (_point(f"{replica}/{point}"), replica)
            for replica, point in product(range(count), range(POINTS))
        )
        self._points = [point for point, _ in self._ring]

    def choose(self, arrival: Arrival, replicas: Sequence[Replica]) -> Replica:
        """Return the replica at the next point of the ring."""
        return replicas[self._ring[self._place(arrival)][1]]

    def _place(self, arrival: Arrival) -> int:
        return bisect(self._points, _point(f"prompt {arrival.prompt}")) % len(self._ring)


class ByPromptBounded(ByPrompt):
    """Consistent hashing with bounded loads (Mirrokni, Thorup and Zadimoghaddam 2018).

    A replica with more than `MAX_LOAD` times the mean of outstanding tokens passes new requests on
    to the next on the ring.
    """

    def choose(self, arrival: Arrival, replicas: Sequence[Replica]) -> Replica:
        """Return the first replica from the prompt's point on that has room."""
        pending = sum(replica.pending_tokens for replica in replicas) + arrival.tokens
        bound = MAX_LOAD * pending / len(replicas)
        start = self._place(arrival)
        places = range(start, start + len(self._ring))
        ring = (replicas[self._ring[place % len(self._ring)][1]] for place in places)
        return next(
            replica for replica in ring if replica.pending_tokens < bound or len(replicas) == 1
        )


class RoundRobin(Router):
    """Each replica in its order."""

    def __init__(self, _: int) -> None:
        self._next = 0

    def choose(self, arrival: Arrival, replicas: Sequence[Replica]) -> Replica:
        """Return the next replica."""
        self._next += 1
        return replicas[self._next % len(replicas)]


class LeastTokens(Router):
    """The replica with the fewest tokens of unanswered requests; the router knows them all."""

    def __init__(self, _: int) -> None:
        return

    def choose(self, arrival: Arrival, replicas: Sequence[Replica]) -> Replica:
        """Return the least loaded replica."""
        return min(replicas, key=lambda replica: replica.pending_tokens)


ROUTERS: Mapping[str, Callable[[int], Router]] = {
    "by prompt": ByPrompt,
    "by prompt, bounded": ByPromptBounded,
    "round robin": RoundRobin,
    "least tokens": LeastTokens,
}


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of one simulated run. `latencies` are in seconds, in order of arrival."""

    sources: Counter[str]
    latencies: list[float]
    computed: int
    distinct: int
    tokens: list[int]
    seconds: float

    @property
    def wasted(self) -> int:
        """Forward passes of texts that were computed elsewhere, too."""
        return self.computed - self.distinct


class Figures(NamedTuple):
    """The compared figures of one run: shares of the requests, tokens, seconds, and a ratio."""

    wasted: float
    hits: float
    shared: float
    tokens: float
    p50: float
    p99: float
    imbalance: float


class Estimate(NamedTuple):
    """A mean over seeds, and half of its 95 % interval (Student's t)."""

    mean: float
    half: float


def simulate(
    trace: Sequence[Arrival], routing: str, sharing: Sharing, count: int, config: ReplicaConfig
) -> Result:
    """Simulate a trace on `count` replicas."""
    env = simpy.Environment()
    redis = SharedRedis(sharing)
    replicas = [Replica(env, config, redis) for _ in range(count)]
    router = ROUTERS[routing](count)
    sources: Counter[str] = Counter()
    latencies = [0.0] * len(trace)

    def request(number: int, arrival: Arrival) -> Process:
        yield env.timeout(arrival.at)
        source = yield from router.choose(arrival, replicas).serve(arrival)
        sources[source] += 1
        latencies[number] = env.now - arrival.at

    requests = [env.process(request(number, arrival)) for number, arrival in enumerate(trace)]
    env.run(env.all_of(requests))
    return Result(
        sources,
        latencies,
        computed=sum(sum(replica.computed.values()) for replica in replicas),
        distinct=len({arrival.text for arrival in trace}),
        tokens=[replica.computed_tokens for replica in replicas],
        seconds=env.now,
    )


def figures_of(result: Result) -> Figures:
    """Return the compared figures of a run."""
    count = len(result.latencies)
    hits = result.sources["memory"] + result.sources["redis"] + result.sources["awaited"]
    return Figures(
        wasted=result.wasted / count,
        hits=hits / count,
        shared=result.sources["shared"] / count,
        tokens=sum(result.tokens) / count,
        p50=percentile(result.latencies, 0.5),
        p99=percentile(result.latencies, 0.99),
        imbalance=max(result.tokens) / fmean(result.tokens),
    )


def compare(
    trace: TraceConfig, replica: ReplicaConfig, count: int, seeds: int
) -> dict[tuple[str, Sharing], list[Estimate]]:
    """Return the figures of each routing and sharing, estimated over seeds."""
    traces = [draw_trace(trace, seed) for seed in range(seeds)]
    sharings: tuple[Sharing, ...] = get_args(Sharing)
    return {
        (routing, sharing): [
            _estimate(values)
            for values in zip(
                *(
                    figures_of(simulate(drawn, routing, sharing, count, replica))
                    for drawn in traces
                ),
                strict=True,
            )
        ]
        for routing, sharing in product(ROUTERS, sharings)
    }


def table(rows: Mapping[tuple[str, Sharing], Sequence[Estimate]]) -> Iterator[str]:
    """Yield the lines of a table in Markdown."""
    yield (
        "| routing | shared | computed twice | cache hits | joined in flight | tokens per item "
        "| p50 | p99 | busiest / mean |"
    )
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    formats = (_percent, _percent, _percent, _tokens, _seconds, _seconds, _ratio)
    for (routing, sharing), estimates in rows.items():
        cells = [show(cell) for show, cell in zip(formats, estimates, strict=True)]
        yield f"| {routing} | {SHARED[sharing]} | {' | '.join(cells)} |"


def main() -> None:
    """Simulate, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--replicas", type=int, default=8, help="servers with one device each (8)")
    add("--seeds", type=int, default=5, help="traces, each from a seed of its own (5)")
    add("--steps", type=int, default=TraceConfig.steps, help="training steps of a trace (6)")
    add("--prompts", type=int, default=TraceConfig.prompts, help="prompts of a step (128)")
    add("--duplicates", type=float, default=TraceConfig.duplicates, help="equal completions (0.15)")
    add("--speed", type=float, default=ReplicaConfig.speed, help="tokens/s of a device (50000)")
    add("--publish", action="store_true", help=f"draw {FIGURE} too")
    given = parser.parse_args()
    trace = replace(
        TraceConfig(), steps=given.steps, prompts=given.prompts, duplicates=given.duplicates
    )
    rows = compare(trace, ReplicaConfig(speed=given.speed), given.replicas, given.seeds)
    print("\n".join(table(rows)))
    if given.publish:
        from benchmarks.routing_plot import draw

        draw(rows, FIGURE)


def _point(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def _estimate(values: Sequence[float]) -> Estimate:
    if len(values) < 2:
        return Estimate(fmean(values), 0.0)
    half = float(stats.t.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5
    return Estimate(fmean(values), half)


def _percent(cell: Estimate) -> str:
    return f"{100 * cell.mean:.1f} ± {100 * cell.half:.1f} %"


def _tokens(cell: Estimate) -> str:
    return f"{cell.mean:.0f} ± {cell.half:.0f}"


def _seconds(cell: Estimate) -> str:
    return f"{cell.mean:.2f} ± {cell.half:.2f} s"


def _ratio(cell: Estimate) -> str:
    return f"{cell.mean:.2f} ± {cell.half:.2f}"


if __name__ == "__main__":
    main()
