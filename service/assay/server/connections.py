"""Connections, the open connections of the process: their bound, their deadlines, their counts."""

import asyncio
import logging
from collections import Counter
from typing import Protocol

from assay.api.body_budget import RETRY_SECONDS, BodyBudget
from assay.errors import AssayError, Overloaded, ShuttingDown
from assay.metrics import Metrics

logger = logging.getLogger(__name__)

MAX_SWEEP_SECONDS = 1.0
REPORT_SECONDS = 60.0


class Connection(Protocol):
    """One client's connection."""

    deadline: float
    """The time at which the wait for the client's next bytes ends."""

    @property
    def has_open_body(self) -> bool:
        """Whether the server waits for the rest of a request's body."""
        ...

    def refuse(self, error: AssayError) -> None:
        """Answer with an error, take no more requests, and close."""
        ...

    def end_wait(self) -> None:
        """Give up the wait for the client's next bytes."""
        ...

    def evict(self) -> None:
        """Close at once, for another connection."""
        ...

    def check_unread(self, now: float) -> None:
        """Abort the connection if its client reads no reply."""
        ...


class Connections:
    """The open connections, and those among them whose client has to send the next bytes.

    Beyond the bound, a new connection takes the place of the one whose client has kept the server
    waiting longest: without a request, or in the middle of one. If all of them have a request that
    the server is working on, the new one is refused.

    Args:
        max_connections: the bound.
        io_timeout: seconds that a client may take to send a head or a part of a body, or to read.
        keep_alive: seconds for which an idle connection stays open.
        bodies: the bytes of all bodies.
        metrics: the series of connections.
    """

    def __init__(
        self,
        *,
        max_connections: int,
        io_timeout: float,
        keep_alive: float,
        bodies: BodyBudget,
        metrics: Metrics,
    ) -> None:
        self.io_timeout = io_timeout
        self.keep_alive = keep_alive
        self.bodies = bodies
        self._max_connections = max_connections
        self._open: set[Connection] = set()
        self._waiting: dict[Connection, None] = {}  # the longest wait first
        self._rejected = metrics.rejected
        self._unreported: Counter[str] = Counter()
        self._next_report = 0.0
        self._interval = min(MAX_SWEEP_SECONDS, io_timeout / 4, keep_alive / 4)
        metrics.connections.set_function(lambda: len(self._open))
        metrics.body_bytes.set_function(lambda: bodies.held)

    def start(self) -> None:
        """Begin to watch the deadlines; called in the event loop."""
        loop = asyncio.get_running_loop()
        self._schedule(loop, loop.time())

    def has_room(self) -> bool:
        """Return whether a connection more may be open, closing another one if need be."""
        if len(self._open) < self._max_connections:
            return True
        longest = next(iter(self._waiting), None)
        if longest is None:
            return False
        self.stop_waiting(longest)
        longest.evict()
        return True

    def add(self, connection: Connection) -> None:
        """Add an open connection."""
        self._open.add(connection)

    def remove(self, connection: Connection) -> None:
        """Remove a connection that is closed."""
        self._open.discard(connection)
        self._waiting.pop(connection, None)

    def wait(self, connection: Connection, deadline: float) -> None:
        """Wait for the client's next bytes until the deadline."""
        connection.deadline = deadline
        self._waiting.pop(connection, None)
        self._waiting[connection] = None

    def stop_waiting(self, connection: Connection) -> None:
        """End the wait for the client's next bytes."""
        self._waiting.pop(connection, None)

    def free_bodies(self) -> bool:
        """Refuse unfinished bodies, the longest wait first; return whether that made room."""
        for connection in self._unfinished():
            if not self.bodies.is_exceeded:
                break
            connection.refuse(self.bodies.refusal())
        return not self.bodies.is_exceeded

    def end_bodies(self) -> None:
        """Answer the requests that wait for the rest of their body, because the server stops."""
        for connection in self._unfinished():
            connection.refuse(ShuttingDown("the server stopped before the body was complete"))

    def overloaded(self) -> Overloaded:
        """Return the error for a connection that has no room."""
        return Overloaded(
            f"{self._max_connections} connections are open",
            hint="keep connections open and use them again",
            retry_after=RETRY_SECONDS,
            status=503,
        )

    def count(self, reason: str) -> None:
        """Count a request or a connection that was turned away."""
        self._rejected.labels(reason).inc()
        self._unreported[reason] += 1

    def _unfinished(self) -> list[Connection]:
        return [connection for connection in self._waiting if connection.has_open_body]

    def _schedule(self, loop: asyncio.AbstractEventLoop, now: float) -> None:
        due = now + self._interval
        loop.call_at(due, self._sweep, loop, due)

    def _sweep(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        now = loop.time()
        if now - due > self._interval:  # the server was slow, and not its clients
            self._extend(now - due)
        for connection in [entry for entry in self._waiting if entry.deadline <= now]:
            self.stop_waiting(connection)
            connection.end_wait()
        for connection in list(self._open):
            connection.check_unread(now)
        self._report(now)
        self._schedule(loop, now)

    def _extend(self, seconds: float) -> None:
        for connection in self._waiting:
            connection.deadline += seconds

    def _report(self, now: float) -> None:
        if self._unreported and now >= self._next_report:
            counts = sorted(self._unreported.items())
            texts = ", ".join(f"{reason} {count}" for reason, count in counts)
            logger.warning("turned away (%d connections are open): %s", len(self._open), texts)
            self._unreported.clear()
            self._next_report = now + REPORT_SECONDS
