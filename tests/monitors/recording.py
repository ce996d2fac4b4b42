"""A process that records until it is killed: `recording.py FILE [STATEMENT COUNT]`.

It tells each batch that was taken, with the time, on its output. With a statement it kills itself
when SQLite begins that statement for the given time.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from threading import Event

from assay_monitors.observations import Observation, Window
from assay_monitors.recorder import Recorder
from assay_monitors.retention import Retention
from assay_monitors.store import RunStore

ITEMS = 8


def deadly(statement: str, times: int) -> Callable[[str], None]:
    """Ends the process without a word when a statement begins for the given time."""
    left = times

    def trace(begun: str) -> None:
        nonlocal left
        left -= begun.startswith(statement)
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

    return trace


def main() -> None:
    path, *fate = sys.argv[1:]
    store = RunStore(Path(path), Retention(), time.time)
    if fate:
        store._connection.set_trace_callback(deadly(fate[0], int(fate[1])))
    recorder = Recorder(store, time.monotonic)
    recorder.start()
    pace = Event()
    for number in count():
        items = [Observation(float(number), group=f"{number}")] * ITEMS
        window = Window(f"run-{number // 100}", "code@1", "train", number % 10)
        if recorder.record(window, items):
            sys.stdout.write(f"{number} {time.monotonic()}\n")
            sys.stdout.flush()
        pace.wait(0.002)


if __name__ == "__main__":
    main()
