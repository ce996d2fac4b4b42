"""Transports with an injected clock, and listeners that write down what they hear."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from assay_models.engines.client import open_engine
from assay_models.engines.endpoints import Endpoints
from assay_models.engines.http import HttpPool, Reply
from assay_models.engines.keys import ApiKeyFile
from assay_models.engines.listener import BreakerState, CallOutcome, Place
from assay_models.engines.transport import Call, Retries, Transport
from support.engine_cards import engine_card


@dataclass
class Events:
    """A listener that keeps all events."""

    calls: list[tuple[int, CallOutcome]] = field(default_factory=list)
    retries: list[tuple[int, CallOutcome]] = field(default_factory=list)
    breakers: list[tuple[int, BreakerState]] = field(default_factory=list)
    in_flight: dict[int, int] = field(default_factory=dict)
    rows: int = 0

    def on_call(self, place: Place, outcome: CallOutcome, seconds: float, rows: int) -> None:
        assert seconds >= 0
        self.calls.append((place.url, outcome))
        self.rows += rows

    def on_retry(self, place: Place, outcome: CallOutcome) -> None:
        self.retries.append((place.url, outcome))

    def on_breaker(self, place: Place, state: BreakerState) -> None:
        self.breakers.append((place.url, state))

    def on_in_flight(self, place: Place, calls: int) -> None:
        self.in_flight[place.url] = calls

    @property
    def outcomes(self) -> list[CallOutcome]:
        """The outcomes of all tries, in order."""
        return [outcome for _, outcome in self.calls]


@dataclass
class ManualClock:
    """Seconds that pass only in `sleep`."""

    now: float = 1000.0
    pauses: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


def transport(
    *urls: str,
    events: Events | None = None,
    clock: Callable[[], float] | None = None,
    max_calls: int = 4,
    tries: int = 3,
    timeout_seconds: float = 60.0,
    draw: Callable[[], float] = lambda: 1.0,
) -> Transport:
    """Return a transport whose pauses take no time with a `ManualClock`."""
    listener = Events() if events is None else events
    manual = ManualClock() if clock is None else clock
    endpoints = Endpoints("rm@1", urls, max_calls=max_calls, clock=manual, listener=listener)
    return Transport(
        endpoints,
        HttpPool(8, 5.0, is_encrypted=False),
        key=ApiKeyFile(""),
        retries=Retries(tries, timeout_seconds, draw),
        clock=manual,
        listener=listener,
        sleep=manual.sleep if isinstance(manual, ManualClock) else asyncio.sleep,
    )


def call_of(*rows: Sequence[int]) -> Call:
    """Return vLLM's call for some rows."""
    body = f'{{"input": {[list(row) for row in rows]}, "use_activation": false}}'.encode()
    return Call("/classify", body, len(rows), sum(map(len, rows)))


def read_status(reply: Reply) -> int:
    """Return the status of a reply that counts as good."""
    return reply.status


def vllm_engine(*urls: str, **fields: Any) -> Any:
    """Return a client of vLLM."""
    return open_engine(engine_card("vllm", *urls, **fields))
