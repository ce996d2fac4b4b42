"""SharedMemory: keeps what a server remembers of runs as other servers have written it."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from assay.errors import DeadlineExceeded, Overloaded
from assay.runs.new_runs import NewRuns
from assay.runs.owners import Owners
from assay.runs.reading import RunReader
from assay_monitors.history import RunHistory

REFRESH_SECONDS = 1.0


class SharedMemory:
    """A task that reads the runs and their owners of a shared database once a second.

    A run that another server has deleted or renamed is forgotten here too.

    Args:
        owners: the owners as far as they are known.
        new_runs: the runs that are stored or soon will be.
        drop: called with a run that is no longer stored.
    """

    def __init__(self, owners: Owners, new_runs: NewRuns, drop: Callable[[str], None]) -> None:
        self._owners = owners
        self._new_runs = new_runs
        self._drop = drop
        self._stored: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    def open(self, reader: RunReader) -> None:
        """Start to read, in the running event loop."""
        self._task = asyncio.create_task(self._run(reader))

    def close(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()

    async def refresh(self, reader: RunReader) -> None:
        """Read the runs once; what is remembered holds where they cannot be read now."""
        with suppress(Overloaded, DeadlineExceeded):
            owners = await reader.read(_stored_owners)
            for run in self._stored - owners.keys():
                self._drop(run)
            self._stored = set(owners)
            self._owners.replace(owners)
            self._new_runs.replace_stored(owners)

    async def _run(self, reader: RunReader) -> None:
        while True:
            await self.refresh(reader)
            await asyncio.sleep(REFRESH_SECONDS)


def _stored_owners(history: RunHistory) -> dict[str, str]:
    return {run.run: run.owner for run in history.runs() if not run.is_expected}
