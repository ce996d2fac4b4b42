"""Load balancing: the least busy server is next, and one that failed is avoided for a while."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from assay_client._transport.clock import Clock

_FIRST_COOLDOWN_SECONDS = 0.5
_MAX_COOLDOWN_SECONDS = 30.0


@dataclass
class Endpoint:
    """One server.

    Attributes:
        last_used: the number of the request that used it last, to find the longest unused.
        outstanding: its requests in flight.
        failures: its failures in a row.
        cooldown_until: the time until which it is avoided, on the monotonic clock.
    """

    url: str
    last_used: int
    outstanding: int = 0
    failures: int = 0
    cooldown_until: float = 0.0

    def is_available(self, now: float) -> bool:
        """Return whether it may be used. After a failure it gets a single request as a probe."""
        return now >= self.cooldown_until and not (self.failures and self.outstanding)


class Endpoints:
    """The servers of one client, shared by its threads."""

    def __init__(self, urls: Sequence[str], clock: Clock) -> None:
        self._lock = threading.Lock()
        self._clock = clock
        self._uses = len(urls)
        # Many short-lived clients with one list must not all begin with its first server.
        first = int(clock.random() * len(urls))
        self._all = [Endpoint(url, (i - first) % len(urls)) for i, url in enumerate(urls)]

    @property
    def urls(self) -> tuple[str, ...]:
        """All addresses, in cooldown or not."""
        return tuple(endpoint.url for endpoint in self._all)

    def acquire(self, tried: Collection[str]) -> Endpoint:
        """Return the server to use next; it must be released.

        It is available, not yet tried, least busy, longest unused. If none is available, it is the
        one whose cooldown ends first.
        """
        with self._lock:
            now = self._clock.monotonic()
            endpoint = min(self._all, key=lambda endpoint: _rank(endpoint, tried, now))
            endpoint.outstanding += 1
            endpoint.last_used = self._uses = self._uses + 1
            return endpoint

    def release(self, endpoint: Endpoint) -> None:
        """Record that a request to the server ended, with or without success."""
        with self._lock:
            endpoint.outstanding -= 1

    def succeeded(self, endpoint: Endpoint) -> None:
        """Record that the server is healthy."""
        with self._lock:
            endpoint.failures = 0
            endpoint.cooldown_until = 0.0

    def failed(self, endpoint: Endpoint, retry_after: float | None) -> None:
        """Start a cooldown: as long as the server asked, or longer with each failure in a row."""
        with self._lock:
            backoff = min(
                _MAX_COOLDOWN_SECONDS, _FIRST_COOLDOWN_SECONDS * 2.0 ** min(endpoint.failures, 16)
            )
            endpoint.failures += 1
            seconds = backoff if retry_after is None else min(_MAX_COOLDOWN_SECONDS, retry_after)
            endpoint.cooldown_until = self._clock.monotonic() + seconds

    def has_untried(self, tried: Collection[str]) -> bool:
        """Return whether an available server has not been tried yet."""
        with self._lock:
            now = self._clock.monotonic()
            return any(
                endpoint.is_available(now) and endpoint.url not in tried for endpoint in self._all
            )


def _rank(
    endpoint: Endpoint, tried: Collection[str], now: float
) -> tuple[bool, float, bool, int, int]:
    is_available = endpoint.is_available(now)
    until = 0.0 if is_available else endpoint.cooldown_until
    return (
        not is_available,
        until,
        endpoint.url in tried,
        endpoint.outstanding,
        endpoint.last_used,
    )
