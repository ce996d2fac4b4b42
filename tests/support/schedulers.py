"""Schedulers for tests, their entries, and the batches formed from them."""

import math
from collections.abc import Iterable, Sequence

from assay.batching.entry import Entry
from assay.batching.scheduler import Cost, Scheduler, ThroughputEstimator
from assay.types import Lane
from assay_models.base import Input

NO_DEADLINE = math.inf
BUDGET, ROWS = 64, 8
SPEED = 100.0


def padded_cost(inputs: Sequence[Input]) -> int:
    return len(inputs) * max((row.tokens for row in inputs), default=0)


def packed_cost(inputs: Sequence[Input]) -> int:
    return sum(row.tokens for row in inputs)


def measured_throughput() -> ThroughputEstimator:
    """Return the estimate measured on a device that computes `SPEED` tokens a second."""
    measured = ThroughputEstimator()
    measured.resume(0.0)
    measured.record(int(SPEED), 1.0, 1.0, full=True)
    return measured


def entry(
    tokens: int,
    lane: Lane = "training",
    *,
    now: float = 0.0,
    deadline: float = NO_DEADLINE,
    prefix_key: bytes = b"",
) -> Entry:
    return Entry(Input(b"", tokens, None, prefix_key), lane, deadline, now)


def empty_scheduler(cost: Cost = padded_cost, max_tokens: int = 10**9) -> Scheduler[Entry]:
    return Scheduler(cost, max_tokens, measured_throughput())


def filled_scheduler(entries: Iterable[Entry], cost: Cost = padded_cost) -> Scheduler[Entry]:
    scheduler = empty_scheduler(cost)
    for waiting in entries:
        scheduler.add(waiting)
    return scheduler


def form_batch(scheduler: Scheduler[Entry], now: float = 0.0, budget: int = BUDGET) -> list[Entry]:
    return scheduler.form(now, budget, ROWS).entries


def token_counts(entries: Iterable[Entry]) -> list[int]:
    return [waiting.input.tokens for waiting in entries]
