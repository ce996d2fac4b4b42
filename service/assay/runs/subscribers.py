"""Subscribers: clients that receive an update whenever new data of a run is recorded."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

from assay.errors import Overloaded
from assay.runs.monitor import RunMonitor
from assay_monitors.history import Update

MAX_SUBSCRIBERS, MAX_SUBSCRIBERS_PER_OWNER = 512, 64
"""Subscriptions at a time: to all runs together, and of one key."""
POLL_SECONDS = 1.0
HEARTBEAT_SECONDS = 15.0
RETRY_SECONDS = 30.0


class Subscriber:
    """One client's subscription to a run.

    It holds only the latest update, however slowly the client reads.
    """

    def __init__(self, run: str, update: Update, heartbeat: float, owner: str = "") -> None:
        self.run = run
        self.owner = owner
        self._update = update
        self._heartbeat = heartbeat
        self._is_new = True
        self._ended = False
        self._wake = asyncio.Event()

    async def updates(self) -> AsyncIterator[Update | None]:
        """Yield the initial update, then every newer one, and None as a heartbeat.

        None follows `heartbeat` seconds without an update. Ends when the run is no longer kept, and
        when the server stops.
        """
        while not self._ended:
            is_new, self._is_new = self._is_new, False
            yield self._update if is_new else None
            await self._wait()

    def publish(self, update: Update) -> None:
        """Pass an update on if it is new."""
        if update != self._update:
            self._update = update
            self._is_new = True
            self._wake.set()

    def end(self) -> None:
        """End the subscription; no update follows."""
        self._ended = True
        self._wake.set()

    async def _wait(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._heartbeat):
                await self._wake.wait()
        self._wake.clear()


class Subscribers:
    """All subscriptions.

    One task polls for all of them, once a second and only while there are any, because another
    process that shares the file may have recorded the data.

    Args:
        monitor: the monitor whose runs are polled.
        maximum: subscriptions at a time.
        share: subscriptions of one key at a time.
        poll: seconds between two polls.
        heartbeat: seconds without an update after which a subscriber receives a heartbeat.
    """

    def __init__(
        self,
        monitor: RunMonitor,
        *,
        maximum: int = MAX_SUBSCRIBERS,
        share: int = MAX_SUBSCRIBERS_PER_OWNER,
        poll: float = POLL_SECONDS,
        heartbeat: float = HEARTBEAT_SECONDS,
    ) -> None:
        self._monitor = monitor
        self._maximum = maximum
        self._share = share
        self._poll = poll
        self._heartbeat = heartbeat
        self._subscribers: set[Subscriber] = set()
        self._closed = False
        self._polling: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._subscribers)

    async def latest(self, run: str) -> Update | None:
        """Return the run's latest update; None if it is not kept.

        Raises:
            RunsOff: runs are not recorded.
            Overloaded: the file cannot be read now.
        """
        return (await self._monitor.read(lambda history: history.updates([run]))).get(run)

    def join(self, run: str, update: Update, owner: str = "") -> Subscriber:
        """Subscribe to a run, starting with the update that was just read, until `leave`.

        Args:
            run: the run to subscribe to.
            update: its latest update.
            owner: the name of the caller's key.

        Raises:
            Overloaded: `maximum` subscribers have joined already, or `share` of this key.
        """
        own = sum(subscriber.owner == owner for subscriber in self._subscribers)
        if len(self) >= self._maximum or own >= self._share:
            raise Overloaded(
                f"{min(self._share, self._maximum)} callers follow runs already",
                hint="ask without `Accept: text/event-stream` from time to time",
                retry_after=RETRY_SECONDS,
            )
        subscriber = Subscriber(run, update, self._heartbeat, owner)
        if self._closed:
            subscriber.end()
        self._subscribers.add(subscriber)
        if self._polling is None:
            self._polling = asyncio.create_task(self._keep_polling())
        return subscriber

    def leave(self, subscriber: Subscriber) -> None:
        """Remove a subscriber."""
        self._subscribers.discard(subscriber)

    def close(self) -> None:
        """End all subscriptions, including later ones, because the server stops."""
        self._closed = True
        for subscriber in self._subscribers:
            subscriber.end()
        if self._polling is not None:
            self._polling.cancel()

    async def _keep_polling(self) -> None:
        try:
            while self._subscribers and not self._closed:
                await asyncio.sleep(self._poll)
                with suppress(Overloaded):  # the file is busy: the next poll reads it
                    await self._poll_once()
        finally:
            self._polling = None

    async def _poll_once(self) -> None:
        runs = {subscriber.run for subscriber in self._subscribers}
        updates = await self._monitor.read(lambda history: history.updates(runs))
        for subscriber in self._subscribers:
            if subscriber.run in updates:
                subscriber.publish(updates[subscriber.run])
            elif subscriber.run in runs:
                subscriber.end()
