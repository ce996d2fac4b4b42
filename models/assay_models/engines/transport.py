"""Transport: calls to the URLs of one engine, with retries inside the deadline."""

import asyncio
import math
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Generic, TypeVar

from assay_models import deadlines
from assay_models.engines import failures
from assay_models.engines.endpoints import Endpoint, Endpoints
from assay_models.engines.errors import EngineError
from assay_models.engines.failures import Again, Failure
from assay_models.engines.http import ConnectionFailed, HttpPool, Reply, ReplyUnreadable
from assay_models.engines.keys import ApiKeyFile
from assay_models.engines.listener import CallOutcome, EngineListener
from assay_models.trace_context import traced_call

T = TypeVar("T")
Sleep = Callable[[float], Awaitable[None]]

FIRST_PAUSE_SECONDS = 0.1
MAX_PAUSE_SECONDS = 5.0
MAX_RETRY_AFTER_SECONDS = 60.0
DEFAULT_REST_SECONDS = 1.0
"""Other URLs are preferred for this long to one that answered 429 without `Retry-After`."""
GET_SECONDS = 10.0
"""The longest time for a description, which costs an engine nothing: one that hangs has none."""
STALLED_SECONDS = 10.0
"""A try that a caller's deadline cut short counts against its URL only after this time: callers in
a hurry must not open a circuit breaker for all others."""
ALONE = {"connection": "close"}
"""Headers of a call with a connection of its own, where nothing in a reply says which call it
answers: a proxy that answers one call twice would shift all later replies on its connection."""


@dataclass(frozen=True, slots=True)
class Call:
    """One POST of a JSON body, and the rows and tokens in it.

    `timeout_header`: the header in which the engine takes the milliseconds that are left, if any.
    """

    path: str
    body: bytes
    rows: int = 1
    tokens: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_header: str = ""


@dataclass(frozen=True, slots=True)
class Retries:
    """The number of tries after the first one, the longest single try in seconds, and the source of
    randomness of the pauses between tries."""

    tries: int
    timeout_seconds: float
    draw: Callable[[], float] = random.random


@dataclass(frozen=True, slots=True)
class Value(Generic[T]):
    """The value of a try that succeeded."""

    value: T
    outcome: CallOutcome = "ok"


class Transport:
    """Sender of calls.

    A try is bounded by the deadline of `deadlines.latest()` and by `retries.timeout_seconds`; when
    its time is over its connection is closed, so that the engine stops computing. A failed
    connection, 408, 429, 502, 503 and 504 are tried again, at once at a URL that was not tried,
    otherwise after a pause with full jitter or the one that `Retry-After` names. A 500 and a reply
    that cannot be trusted are tried once at another URL. No other 4xx is sent again.

    Args:
        endpoints: the URLs.
        http: the connections.
        key: the bearer key.
        retries: the bounds.
        clock: monotonic seconds.
        listener: receiver of events.
        sleep: waits that many seconds.
    """

    def __init__(
        self,
        endpoints: Endpoints,
        http: HttpPool,
        *,
        key: ApiKeyFile,
        retries: Retries,
        clock: Callable[[], float],
        listener: EngineListener,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.endpoints = endpoints
        self._http = http
        self._key = key
        self._retries = retries
        self._clock = clock
        self._listener = listener
        self._sleep = sleep

    async def call(self, call: Call, read: Callable[[Reply], T]) -> T:
        """Send a call and return the value that `read` finds in a reply with status 200.

        Raises:
            EngineError: no try gave a value.
        """
        tried: frozenset[int] = frozenset()
        moved = False
        for number in count():
            endpoint = await self._acquire(call, tried)
            result = await self._try(endpoint, call, read)
            if isinstance(result, Value):
                return result.value
            tried |= {endpoint.place.url}
            pause = self._pause(result, number, tried, moved)
            if pause is None:
                raise result.error
            moved = moved or result.again == "elsewhere"
            self._listener.on_retry(endpoint.place, result.outcome)
            if pause:
                await self._sleep(pause)
        raise AssertionError("unreachable: the last try returns or raises")

    async def get(self, endpoint: Endpoint, path: str) -> Reply:
        """Ask one URL, without retries, whatever the state of its circuit breaker.

        Raises:
            EngineError: there is no reply; a reply of any status is returned.
        """
        seconds = min(self._seconds_left(), GET_SECONDS)
        try:
            async with asyncio.timeout(seconds):
                headers = {**self._key.headers(), **ALONE}
                return await self._http.send("GET", endpoint.url + path, headers)
        except TimeoutError:
            raise failures.of_timeout(seconds, "never", is_fault=True).error from None
        except ConnectionFailed as error:
            raise failures.of_connection(error).error from error
        except ReplyUnreadable as error:
            raise failures.of_bad_reply(str(error)).error from error

    async def close(self) -> None:
        """Close all connections."""
        await self._http.close()

    async def _acquire(self, call: Call, tried: frozenset[int]) -> Endpoint:
        seconds = self._seconds_left()
        try:
            async with asyncio.timeout(seconds):
                return await self.endpoints.acquire(call.tokens, tried)
        except TimeoutError:
            text = f"no call to the engine could begin within {seconds:.3g} seconds"
            raise EngineError("engine_timeout", text) from None

    async def _try(
        self, endpoint: Endpoint, call: Call, read: Callable[[Reply], T]
    ) -> Value[T] | Failure:
        """Make one try, and report its outcome to the breaker and the listener."""
        began, number = self._clock(), endpoint.breaker.begin()
        outcome: CallOutcome = "cancelled"
        try:
            result = await self._exchange(endpoint, call, read)
            outcome = result.outcome
            self._record(endpoint, number, result)
            return result
        finally:
            if outcome == "cancelled":
                endpoint.breaker.forget(number)
            self._listener.on_call(endpoint.place, outcome, self._clock() - began, call.rows)
            self.endpoints.release(endpoint, call.tokens)

    async def _exchange(
        self, endpoint: Endpoint, call: Call, read: Callable[[Reply], T]
    ) -> Value[T] | Failure:
        seconds = self._seconds_left()
        url, headers = endpoint.url + call.path, self._headers(call, seconds)
        try:
            with traced_call("POST", url, call.rows) as trace:
                async with asyncio.timeout(seconds):
                    traced = {**headers, **trace.headers}
                    reply = await self._http.send("POST", url, traced, call.body)
                trace.status_code = reply.status
        except TimeoutError:
            longest = self._retries.timeout_seconds
            again: Again = "anywhere" if seconds < longest else "never"
            is_fault = seconds >= min(longest, STALLED_SECONDS)
            return failures.of_timeout(seconds, again, is_fault=is_fault)
        except ConnectionFailed as error:
            return failures.of_connection(error)
        except ReplyUnreadable as error:
            return failures.of_bad_reply(str(error))
        result = _result(reply, read)
        if result.outcome in ("bad_reply", "refused"):
            await reply.close_connection()  # it may be the reply to an earlier call
        return result

    def _headers(self, call: Call, seconds: float) -> dict[str, str]:
        headers = {**call.headers, **self._key.headers(), "content-type": "application/json"}
        if call.timeout_header:
            headers[call.timeout_header] = str(max(1, math.floor(seconds * 1e3)))
        return headers

    def _seconds_left(self) -> float:
        """Return the seconds of one try.

        Raises:
            EngineError: no caller waits any more.
        """
        left = min(self._retries.timeout_seconds, deadlines.latest() - self._clock())
        if left <= 0:
            raise EngineError("engine_timeout", "the deadline passed before the engine was called")
        return left

    def _pause(
        self, failure: Failure, number: int, tried: frozenset[int], moved: bool
    ) -> float | None:
        """Return the seconds before the next try; None if there is none."""
        is_last = number == self._retries.tries or failure.again == "never"
        # It may have moved since: a caller that waits longer may have come.
        if is_last or deadlines.latest() <= self._clock():
            return None
        is_elsewhere = self.endpoints.has_other(tried)
        if failure.again == "elsewhere":
            return 0.0 if is_elsewhere and not moved else None
        if is_elsewhere:
            return 0.0
        return self._jitter(failure.error.retry_after, number)

    def _jitter(self, asked: float | None, number: int) -> float | None:
        """Return the pause before a try at the same URL; None if the deadline comes first."""
        longest = min(MAX_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0**number)
        pause = (asked or 0.0) + self._retries.draw() * longest
        left = deadlines.latest() - self._clock()
        return pause if pause < min(left, MAX_RETRY_AFTER_SECONDS) else None

    def _record(self, endpoint: Endpoint, number: int, result: Value[T] | Failure) -> None:
        if isinstance(result, Failure) and result.is_fault:
            endpoint.fail(number, result.error.detail)
        elif result.outcome == "timeout":
            endpoint.breaker.forget(number)
        else:
            endpoint.succeed()
        if isinstance(result, Failure) and result.outcome == "overloaded":
            seconds = result.error.retry_after or DEFAULT_REST_SECONDS
            self.endpoints.rest(endpoint, min(seconds, MAX_RETRY_AFTER_SECONDS))


def _result(reply: Reply, read: Callable[[Reply], T]) -> Value[T] | Failure:
    failure = failures.of_reply(reply)
    if failure is not None:
        return failure
    try:
        return Value(read(reply))
    except EngineError as error:
        return failures.of_bad_reply(error)
