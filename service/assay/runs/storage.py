"""RunStorage: the place in which runs are kept, and how it is opened."""

import logging
import sqlite3
import tempfile
from pathlib import Path

from pydantic import SecretStr

from assay.types import Clock
from assay_monitors.database import Database, StoreError
from assay_monitors.retention import Retention
from assay_monitors.run_file import make_private_folder
from assay_monitors.store import RunStore

logger = logging.getLogger(__name__)

FILE = "runs.db"

Place = Path | Database
"""The path of an SQLite file, or a database."""


class RunStorage:
    """The place in which runs are kept: a file, a database that replicas share, or neither.

    Args:
        place: the file or the database; None for a temporary file that is deleted with the process.
        retention: its limits.
        clock: seconds since the epoch.

    Attributes:
        place: in use; after `open` that of the temporary file where another could not be used.
        is_permanent: whether it outlives the process.
    """

    def __init__(self, place: Place | None, retention: Retention, clock: Clock) -> None:
        self.place = place
        self.is_permanent = False
        self._retention = retention
        self._clock = clock
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    @property
    def is_shared(self) -> bool:
        """Whether it is a database that other servers write."""
        return self.place is not None and not isinstance(self.place, Path)

    def open(self) -> RunStore | None:
        """Return an open store.

        If a file cannot be used, the reason is logged and a temporary file is opened; None if that
        cannot be used either.
        """
        store = None if self.place is None else self._open(self.place)
        self.is_permanent = store is not None
        return store or self._open_temporary()

    def close(self) -> None:
        """Close the connections to a database, and delete the temporary file."""
        if self.place is not None and not isinstance(self.place, Path):
            self.place.close()
        if self._folder is not None:
            self._folder.cleanup()

    def _open(self, place: Place) -> RunStore | None:
        try:
            if isinstance(place, Path):
                make_private_folder(place.parent)
            store = RunStore(place, self._retention, self._clock)
            store.owners()
        except (OSError, sqlite3.Error, StoreError) as error:
            logger.error("runs cannot be kept in %s: %s", place, error)
            return None
        return store

    def _open_temporary(self) -> RunStore | None:
        try:
            self._folder = tempfile.TemporaryDirectory(
                prefix="assay-runs-", ignore_cleanup_errors=True
            )
        except OSError as error:
            logger.error("runs cannot be kept at all: %s", error)
            return None
        self.place = Path(self._folder.name) / FILE
        store = self._open(self.place)
        if store is not None:
            logger.warning(
                "runs are kept in the temporary file %s until the server stops: set "
                "ASSAY_RUNS to a file that can be written, or to off",
                self.place,
            )
        return store


def open_place(setting: Path | SecretStr | None) -> Place | None:
    """Return the place that a setting names: a file, or the PostgreSQL database at a URL.

    Raises:
        ValueError: it is no such URL, or its driver is missing; the message does not repeat it.
    """
    if not isinstance(setting, SecretStr):
        return setting
    try:
        # Only a server with such a database needs the driver.
        from assay_monitors.postgres import PostgresDatabase
    except ImportError:
        raise ValueError(
            "PostgreSQL needs its driver: in a checkout of Assay, pip install '.[postgres]'"
        ) from None
    return PostgresDatabase(setting.get_secret_value())
