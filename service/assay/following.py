"""Followers: who wants to hear of a run whenever something new is recorded for it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

from assay.errors import Overloaded
from assay.runs import RunMonitor
from assay_monitors.history import News

# Who may follow at a time, in all runs together.
MOST = 64
LOOK_SECONDS = 1.0
HEARTBEAT_SECONDS = 15.0
RETRY_SECONDS = 30.0


class Follower:
    """One that follows a run. It holds the latest news and no more, however slowly it is read."""

    def __init__(self, run: str, news: News, heartbeat: float) -> None:
        self.run = run
        self._news = news
        self._heartbeat = heartbeat
        self._unheard = True
        self._ended = False
        self._wake = asyncio.Event()

    async def told(self) -> AsyncIterator[News | None]:
        """The news it began with, then whatever is new; None after a silence, to be passed on as a
        sign of life. Ends when the run is no longer kept, and when the server stops.
        """
        while not self._ended:
            unheard, self._unheard = self._unheard, False
            yield self._news if unheard else None
            await self._woken()

    def tell(self, news: News) -> None:
        """Pass on what was found, if it is new."""
        if news != self._news:
            self._news = news
            self._unheard = True
            self._wake.set()

    def end(self) -> None:
        """There is nothing to follow any more."""
        self._ended = True
        self._wake.set()

    async def _woken(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._heartbeat):
                await self._wake.wait()
        self._wake.clear()


class Followers:
    """All that follow a run. One task looks for all of them, once a second and only while there are
    any: whoever records may be another process that shares the file.

    Args:
        monitor: what is known of runs.
        most: followers at a time.
        look: seconds from one look to the next.
        heartbeat: seconds of silence after which a follower hears that the line is alive.
    """

    def __init__(
        self,
        monitor: RunMonitor,
        most: int = MOST,
        look: float = LOOK_SECONDS,
        heartbeat: float = HEARTBEAT_SECONDS,
    ) -> None:
        self._monitor = monitor
        self._most = most
        self._look = look
        self._heartbeat = heartbeat
        self._followers: set[Follower] = set()
        self._closed = False
        self._looking: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._followers)

    async def latest(self, run: str) -> News | None:
        """The run's latest news; None if it is not kept.

        Raises:
            RunsOff: nothing is recorded.
            Overloaded: the file cannot be read now.
        """
        return (await self._monitor.read(lambda history: history.news([run]))).get(run)

    def join(self, run: str, news: News) -> Follower:
        """Follow a run from the news that the caller has just read, until `leave`.

        Raises:
            Overloaded: as many follow as may.
        """
        if len(self) >= self._most:
            raise Overloaded(
                f"{self._most} callers follow runs already",
                hint="ask without `Accept: text/event-stream` from time to time",
                retry_after=RETRY_SECONDS,
            )
        follower = Follower(run, news, self._heartbeat)
        if self._closed:
            follower.end()
        self._followers.add(follower)
        if self._looking is None:
            self._looking = asyncio.create_task(self._keep_looking())
        return follower

    def leave(self, follower: Follower) -> None:
        """Make room: it follows no more."""
        self._followers.discard(follower)

    def close(self) -> None:
        """Tell all that it ends, and whoever comes later: the server stops."""
        self._closed = True
        for follower in self._followers:
            follower.end()
        if self._looking is not None:
            self._looking.cancel()

    async def _keep_looking(self) -> None:
        try:
            while self._followers and not self._closed:
                await asyncio.sleep(self._look)
                with suppress(Overloaded):  # the file is busy: the next look will do
                    await self._look_once()
        finally:
            self._looking = None

    async def _look_once(self) -> None:
        runs = {follower.run for follower in self._followers}
        found = await self._monitor.read(lambda history: history.news(runs))
        for follower in self._followers:
            if follower.run in found:
                follower.tell(found[follower.run])
            elif follower.run in runs:
                follower.end()
