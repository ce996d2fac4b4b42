"""The servers a client may ask: the least busy one is next, and one that failed rests a while."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from assay_client._transport.clock import Clock

_FIRST_REST_S = 0.5
_LONGEST_REST_S = 30.0


@dataclass
class Endpoint:
    """One server: how many requests it has now, how often it failed in a row, how long it rests."""

    url: str
    last_used: int
    outstanding: int = 0
    failures: int = 0
    rests_until: float = 0.0

    def awake(self, now: float) -> bool:
        """Whether it may be asked. One that has failed gets a single request to prove itself."""
        return now >= self.rests_until and not (self.failures and self.outstanding)


class Endpoints:
    """The servers of one client, shared by its threads."""

    def __init__(self, urls: Sequence[str], clock: Clock) -> None:
        self._lock = threading.Lock()
        self._clock = clock
        self._turn = len(urls)
        # Many short-lived clients with one list must not all begin with its first server.
        first = int(clock.random() * len(urls))
        self._all = [Endpoint(url, (i - first) % len(urls)) for i, url in enumerate(urls)]

    @property
    def urls(self) -> tuple[str, ...]:
        """All addresses, resting or not."""
        return tuple(endpoint.url for endpoint in self._all)

    def acquire(self, tried: Collection[str]) -> Endpoint:
        """The server to ask next: awake, not yet tried, least busy, longest unused; where all
        rest, the one that wakes first. It must be released."""
        with self._lock:
            now = self._clock.monotonic()
            chosen = min(self._all, key=lambda endpoint: _rank(endpoint, tried, now))
            chosen.outstanding += 1
            chosen.last_used = self._turn = self._turn + 1
            return chosen

    def release(self, endpoint: Endpoint) -> None:
        """The request to it is over, in whatever way."""
        with self._lock:
            endpoint.outstanding -= 1

    def succeeded(self, endpoint: Endpoint) -> None:
        """It answered as a server in good health does."""
        with self._lock:
            endpoint.failures = 0
            endpoint.rests_until = 0.0

    def failed(self, endpoint: Endpoint, retry_after: float | None) -> None:
        """It did not; it rests as long as it asked, or longer with each failure in a row."""
        with self._lock:
            backoff = min(_LONGEST_REST_S, _FIRST_REST_S * 2.0 ** min(endpoint.failures, 16))
            endpoint.failures += 1
            rest = backoff if retry_after is None else min(_LONGEST_REST_S, retry_after)
            endpoint.rests_until = self._clock.monotonic() + rest

    def has_other(self, tried: Collection[str]) -> bool:
        """Whether a server that is awake has not been tried yet."""
        with self._lock:
            now = self._clock.monotonic()
            return any(each.awake(now) and each.url not in tried for each in self._all)


def _rank(
    endpoint: Endpoint, tried: Collection[str], now: float
) -> tuple[bool, float, bool, int, int]:
    awake = endpoint.awake(now)
    wakes = 0.0 if awake else endpoint.rests_until
    return (not awake, wakes, endpoint.url in tried, endpoint.outstanding, endpoint.last_used)
