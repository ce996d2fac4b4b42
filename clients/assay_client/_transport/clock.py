"""The source of time and randomness, passed in so that tests need not wait."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Clock:
    """The functions from which the clients take time and randomness.

    Attributes:
        monotonic: seconds, for deadlines.
        wall: seconds since the epoch, for a `Retry-After` that is a date.
        random: uniform in [0, 1), for the jitter of the waits.
        sleep: the wait of `Client`.
        async_sleep: the wait of `AsyncClient`.
    """

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    random: Callable[[], float] = random.random
    sleep: Callable[[float], object] = time.sleep
    async_sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
