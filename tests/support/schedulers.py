"""Queues for tests: entries of any length, and what forming a batch of them gives."""

import math
from collections.abc import Iterable, Sequence

from assay.batching.entry import Entry
from assay.batching.scheduler import Cost, Scheduler, ThroughputEstimator
from assay.types import Lane
from assay_models.base import Input

NEVER = math.inf
BUDGET, ROWS = 64, 8
SPEED = 100.0


def padded(inputs: Sequence[Input]) -> int:
    return len(inputs) * max((one.tokens for one in inputs), default=0)


def packed(inputs: Sequence[Input]) -> int:
    return sum(one.tokens for one in inputs)


def pace() -> ThroughputEstimator:
    """As measured on a device that does `SPEED` tokens a second."""
    measured = ThroughputEstimator()
    measured.resume(0.0)
    measured.record(int(SPEED), 1.0, 1.0, full=True)
    return measured


def entry(
    tokens: int,
    lane: Lane = "training",
    now: float = 0.0,
    deadline: float = NEVER,
    prefix_key: bytes = b"",
) -> Entry:
    return Entry(Input(b"", tokens, None, prefix_key), lane, deadline, now)


def queue(cost: Cost = padded, max_tokens: int = 10**9) -> Scheduler[Entry]:
    return Scheduler(cost, max_tokens, pace())


def filled(entries: Iterable[Entry], cost: Cost = padded) -> Scheduler[Entry]:
    one = queue(cost)
    for waiting in entries:
        one.add(waiting)
    return one


def formed(one: Scheduler[Entry], now: float = 0.0, budget: int = BUDGET) -> list[Entry]:
    return one.form(now, budget, ROWS).entries


def lengths(entries: Iterable[Entry]) -> list[int]:
    return [waiting.input.tokens for waiting in entries]
