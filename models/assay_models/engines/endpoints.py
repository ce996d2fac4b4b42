"""Endpoints: the URLs of an engine, and the choice of the one that takes the next call."""

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from assay_models.engines.breaker import CircuitBreaker
from assay_models.engines.errors import EngineError
from assay_models.engines.listener import BreakerState, EngineListener, Place

logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Endpoint:
    """One URL, with its calls in flight and their tokens.

    `used` counts the calls it has had. Until `busy_until` others are preferred: it is overloaded.
    `is_lost`: its breaker opened, and no call has succeeded since.
    """

    place: Place
    url: str
    breaker: CircuitBreaker
    calls: int = 0
    tokens: int = 0
    used: int = 0
    busy_until: float = 0.0
    is_lost: bool = False

    def succeed(self) -> None:
        """Count a call that it answered, whatever it answered to this one."""
        self.breaker.succeed()
        if self.is_lost:
            self.is_lost = False
            logger.info("%s: the engine at %s answers again", self.place.model, self.url)

    def fail(self, call: int, reason: str) -> None:
        """Count a call that it did not answer properly."""
        self.breaker.fail(call)
        if not self.is_lost and self.breaker.state == "open":
            self.is_lost = True
            logger.warning("%s: the engine at %s is lost: %s", self.place.model, self.url, reason)


class Endpoints:
    """The URLs of one model's engine.

    Args:
        model: the model's id, for the listener.
        urls: at least one.
        max_calls: calls in flight for each URL.
        clock: monotonic seconds.
        listener: receiver of events.
    """

    def __init__(
        self,
        model: str,
        urls: Sequence[str],
        *,
        max_calls: int,
        clock: Callable[[], float],
        listener: EngineListener,
    ) -> None:
        self._max_calls = max_calls
        self._clock = clock
        self._listener = listener
        self._waiting: list[asyncio.Future[None]] = []
        self.all = tuple(
            Endpoint(place, url, CircuitBreaker(clock, self._notify(place)))
            for place, url in ((Place(model, number), url) for number, url in enumerate(urls))
        )
        self._used = self.all

    def use(self, urls: Collection[str]) -> None:
        """Take places at these URLs only; calls that wait choose among them."""
        self._used = tuple(endpoint for endpoint in self.all if endpoint.url in urls)
        self._wake()

    async def acquire(self, tokens: int, tried: frozenset[int] = frozenset()) -> Endpoint:
        """Take a place for a call, at the URL with the fewest outstanding tokens.

        A URL whose number was `tried` is taken only if no other may be called. Waits while those
        that can be taken have as many calls in flight as they may have.

        Raises:
            EngineError: the circuit breaker of every URL is open.
        """
        while True:
            allowed = [endpoint for endpoint in self._used if endpoint.breaker.allows_call]
            if not allowed and not self._has_trial():
                raise self._out_of_use()
            others = [endpoint for endpoint in allowed if endpoint.place.url not in tried]
            free = [each for each in others or allowed if each.calls < self._max_calls]
            if free:
                now = self._clock()
                endpoint = min(
                    free, key=lambda each: (each.busy_until > now, each.tokens, each.used)
                )
                self._take(endpoint, tokens)
                return endpoint
            await self._wait()

    def release(self, endpoint: Endpoint, tokens: int) -> None:
        """Give a place back."""
        endpoint.calls -= 1
        endpoint.tokens -= tokens
        self._listener.on_in_flight(endpoint.place, endpoint.calls)
        self._wake()

    def rest(self, endpoint: Endpoint, seconds: float) -> None:
        """Prefer other URLs for some seconds."""
        endpoint.busy_until = self._clock() + seconds

    def has_other(self, tried: frozenset[int]) -> bool:
        """Return whether a URL that was not tried may be called now."""
        return any(
            endpoint.breaker.allows_call
            for endpoint in self._used
            if endpoint.place.url not in tried
        )

    def _take(self, endpoint: Endpoint, tokens: int) -> None:
        endpoint.calls += 1
        endpoint.used += 1
        endpoint.tokens += tokens
        self._listener.on_in_flight(endpoint.place, endpoint.calls)

    def _wake(self) -> None:
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    async def _wait(self) -> None:
        """Wait until a call has ended. Waiting calls wake in the order in which they came."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            await future
        finally:
            self._waiting.remove(future)

    def _has_trial(self) -> bool:
        """Return whether a half-open breaker's one call is in flight, so that waiting may help."""
        return any(endpoint.breaker.state == "half_open" for endpoint in self._used)

    def _out_of_use(self) -> EngineError:
        seconds = min(endpoint.breaker.retry_after for endpoint in self._used)
        return EngineError(
            "engine_unavailable",
            f"the engine failed repeatedly; it is called again in {seconds:.1f} seconds",
            retry_after=seconds,
        )

    def _notify(self, place: Place) -> Callable[[BreakerState], None]:
        return lambda state: self._listener.on_breaker(place, state)
