"""Queues for tests: entries of any length, and what forming a batch of them gives."""

import math
from collections.abc import Iterable, Sequence

from assay.queueing import (
    Cost,
    Entry,
    Lane,
    Pace,
    Queue,
)
from assay_models.base import Input

NEVER = math.inf
BUDGET, ROWS = 64, 8
SPEED = 100.0


def padded(inputs: Sequence[Input]) -> int:
    return len(inputs) * max((one.tokens for one in inputs), default=0)


def packed(inputs: Sequence[Input]) -> int:
    return sum(one.tokens for one in inputs)


def pace() -> Pace:
    """As measured on a device that does `SPEED` tokens a second."""
    measured = Pace()
    measured.resume(0.0)
    measured.count(int(SPEED), 1.0, 1.0, full=True)
    return measured


def entry(
    tokens: int,
    lane: Lane = "training",
    now: float = 0.0,
    deadline: float = NEVER,
    kin: bytes = b"",
) -> Entry:
    return Entry(Input(b"", tokens, None, kin), lane, deadline, now)


def queue(cost: Cost = padded, max_tokens: int = 10**9) -> Queue[Entry]:
    return Queue(cost, max_tokens, pace())


def filled(entries: Iterable[Entry], cost: Cost = padded) -> Queue[Entry]:
    one = queue(cost)
    for waiting in entries:
        one.add(waiting)
    return one


def formed(one: Queue[Entry], now: float = 0.0, budget: int = BUDGET) -> list[Entry]:
    return one.form(now, budget, ROWS).entries


def lengths(entries: Iterable[Entry]) -> list[int]:
    return [waiting.input.tokens for waiting in entries]
