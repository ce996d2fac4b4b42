"""A process that records until it is killed: `recording.py FILE [STATEMENT COUNT]`.

It prints each batch that the recorder took, with the time. With a statement it kills itself when
SQLite begins that statement for the given time.
"""

import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from threading import Event
from typing import Any, ClassVar
from unittest.mock import patch

from assay_monitors.observations import Observation, Window
from assay_monitors.recorder import Recorder
from assay_monitors.retention import Retention
from assay_monitors.store import RunStore

ITEMS = 8


def kill_at(statement: str, times: int) -> Callable[[str], None]:
    """Return a trace callback that kills the process when a statement begins for the given time."""
    left = times

    def trace(begun: str) -> None:
        nonlocal left
        left -= begun.startswith(statement)
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

    return trace


class KnownConnection(sqlite3.Connection):
    """A connection that can be found after another object has opened it."""

    opened: ClassVar[list[sqlite3.Connection]] = []

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.opened.append(self)


def main() -> None:
    path, *fatal = sys.argv[1:]
    with patch("sqlite3.connect", partial(sqlite3.connect, factory=KnownConnection)):
        store = RunStore(Path(path), Retention(), time.time)
    if fatal:
        (connection,) = KnownConnection.opened
        connection.set_trace_callback(kill_at(fatal[0], int(fatal[1])))
    recorder = Recorder(store, time.monotonic)
    recorder.start()
    pause = Event()
    for number in count():
        items = [Observation(float(number), group=f"{number}")] * ITEMS
        window = Window(f"run-{number // 100}", "code@1", "train", number % 10)
        if recorder.record(window, items):
            sys.stdout.write(f"{number} {time.monotonic()}\n")
            sys.stdout.flush()
        pause.wait(0.002)


if __name__ == "__main__":
    main()
