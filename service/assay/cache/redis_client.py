"""RedisClient: bounded calls of one Redis, which never raise, and the names of its keys."""

import asyncio
import hashlib
import math
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TypeVar, cast

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.commands.core import AsyncScript
from redis.exceptions import ResponseError

from assay.cache.redis_state import OPERATIONS, Operation, RedisState
from assay.metrics import Metrics

T = TypeVar("T")

MAX_PAUSE_SECONDS = 30.0
MAX_CONNECTIONS = 32
"""Further calls wait for a connection, within their timeout."""
PREFIX = b"assay:"
CHECKSUM = b"assay checksum"
"""The purpose of keys of checksums. A purpose is of at most 16 bytes."""


class Pause:
    """A pause after failures, which doubles up to `MAX_PAUSE_SECONDS`.

    Args:
        first: seconds of the first pause.
        clock: monotonic seconds.
    """

    def __init__(self, first: float, clock: Callable[[], float]) -> None:
        self._first = first
        self._clock = clock
        self._seconds = 0.0
        self._until = self._failed_at = -math.inf

    def is_over(self) -> bool:
        """Return whether calls may be made."""
        return self._clock() >= self._until

    def end(self) -> None:
        """Begin with the first pause again at the next failure."""
        self._seconds = 0.0

    def lengthen(self, began: float) -> None:
        """Double the pause, once for calls that fail together.

        Args:
            began: when the failed call began.
        """
        if began > self._failed_at:
            self._seconds = min(MAX_PAUSE_SECONDS, max(self._first, self._seconds * 2))
            self._failed_at = self._clock()
            self._until = self._failed_at + self._seconds


class RedisClient:
    """A client of one Redis, for all that the replicas share there.

    Each call is bounded by `timeout` seconds. After a failure no call of the same operation is made
    for a `Pause`, so that a hung server does not cost every request a timeout, and a full one is
    still read. `state` names the reason. The protocol is RESP2, which every Redis and every proxy
    speaks.

    Args:
        url: the server's URL.
        timeout: seconds that each call may take.
        metrics: the gauge of the server's state.
        clock: monotonic seconds.
        secret: the secret without which neither names nor checksums can be computed; empty for
            none.

    Raises:
        ValueError: the URL is malformed.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float,
        metrics: Metrics,
        clock: Callable[[], float],
        secret: bytes = b"",
    ) -> None:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=MAX_CONNECTIONS,
            timeout=timeout,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            retry=Retry(NoBackoff(), 0),
            decode_responses=False,
            protocol=2,
            driver_info=None,  # there are proxies that close the connection at CLIENT SETINFO
        )
        self.redis: Redis = Redis.from_pool(pool)
        self.state = RedisState(metrics.cache_up.labels("redis"), clock)
        self.clock = clock
        self._timeout = timeout
        self._secret = hashlib.sha256(secret).digest() if secret else b""
        self._scripts: dict[str, AsyncScript] = {}
        self._pauses = {operation: Pause(timeout, clock) for operation in OPERATIONS}
        self._tasks: set[asyncio.Task[object]] = set()

    def is_pausing(self, operation: Operation) -> bool:
        """Return whether calls of this operation fail at once, after an earlier failure."""
        return not self._pauses[operation].is_over()

    async def call(self, operation: Operation, command: Callable[[], Awaitable[T]]) -> T | None:
        """Return the reply to a command; None if it failed, or during a pause."""
        pause = self._pauses[operation]
        if not pause.is_over():
            return None
        began = self.clock()
        try:
            async with asyncio.timeout(self._timeout):
                reply = await command()
        except Exception as error:  # noqa: BLE001 a faulty server can make its client raise anything; a miss is always right
            # A refused command says nothing about others; a bad connection does.
            failing = (operation,) if isinstance(error, ResponseError) else OPERATIONS
            self.state.record_failure(failing, error)
            for name in failing:
                self._pauses[name].lengthen(began)
            return None
        self.state.record_success(operation)
        pause.end()
        return reply

    def run(self, call: Coroutine[object, object, object]) -> None:
        """Make a call in the background; `close` waits for it."""
        task = asyncio.create_task(call)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @property
    def pending(self) -> frozenset[asyncio.Task[object]]:
        """The calls in the background that have not ended."""
        return frozenset(self._tasks)

    async def close(self) -> None:
        """Wait for the pending calls (each is bounded), then disconnect."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        await self.redis.aclose()

    def eval(
        self, script: str, names: Sequence[bytes], arguments: Sequence[bytes | int | float]
    ) -> Awaitable[object]:
        """Return the reply of a script, which Redis runs atomically.

        Its text is sent once, and again if Redis has forgotten it.
        """
        if script not in self._scripts:
            self._scripts[script] = self.redis.register_script(script)
        return cast(Awaitable[object], self._scripts[script](names, arguments))

    def derived(self, key: bytes, purpose: bytes) -> bytes:
        """Return the key for a purpose; with a secret, one that cannot be computed without it."""
        if not self._secret:
            return key
        return hashlib.blake2b(key, digest_size=32, key=self._secret, person=purpose).digest()
