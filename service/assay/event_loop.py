"""A monitor of the event loop, which counts what keeps it from running other tasks."""

import asyncio
import logging
import sys
import threading
import time
from types import FrameType

from assay.metrics import Metrics

logger = logging.getLogger(__name__)

STALL_SECONDS = 0.05
BEAT_SECONDS = 0.02
LOG_SECONDS = 60.0
# A shorter wait is for a processor, on a busy machine: counted, and not logged.
MIN_LOGGED_WAIT_SECONDS = 1.0
OWN_PACKAGES = ("assay", "assay_models", "assay_monitors")


class EventLoopMonitor:
    """A monitor that measures by how much a timer of the event loop is late.

    A delay of more than `STALL_SECONDS` is a stall. Its cause is `computing` if the loop's own
    thread used that much processor time, in one callback or in all that were due at once; else it
    is `waiting`: for a blocking call, for the interpreter's lock or for a processor. A thread notes
    the place in the code, and no value of any variable.

    Args:
        metrics: the series of the process.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._lag = metrics.event_loop_lag_seconds
        self._stalls = metrics.event_loop_stalls
        self._stopped = threading.Event()
        self._thread_id = 0
        self._due = self._used = 0.0
        self._place: str | None = None
        self._quiet_until = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Start the timer in the running event loop, and the thread."""
        self._thread_id = threading.get_ident()
        self._schedule()
        threading.Thread(target=self._observe, name="event-loop-monitor", daemon=True).start()

    def stop(self) -> None:
        """Stop both."""
        self._stopped.set()
        if self._timer is not None:
            self._timer.cancel()

    def _schedule(self) -> None:
        self._used = time.thread_time()
        self._place = None
        self._due = time.monotonic() + BEAT_SECONDS
        self._timer = asyncio.get_running_loop().call_later(BEAT_SECONDS, self._beat)

    def _beat(self) -> None:
        lag = max(0.0, time.monotonic() - self._due)
        self._lag.observe(lag)
        if lag > STALL_SECONDS:
            is_computing = time.thread_time() - self._used > STALL_SECONDS
            cause = "computing" if is_computing else "waiting"
            self._stalls.labels(cause).inc()
            if is_computing or lag >= MIN_LOGGED_WAIT_SECONDS:
                self._log(lag, cause)
        self._schedule()

    def _log(self, lag: float, cause: str) -> None:
        """Log a stall, unless another was logged within `LOG_SECONDS`."""
        now = time.monotonic()
        if now < self._quiet_until:
            return
        self._quiet_until = now + LOG_SECONDS
        place = self._place or "an unknown place"
        logger.warning("the event loop was %s for %.0f ms at %s", cause, lag * 1e3, place)

    def _observe(self) -> None:
        """Note the place at which the loop's thread is once the timer is late."""
        while not self._stopped.wait(BEAT_SECONDS):
            if self._place is None and time.monotonic() > self._due + STALL_SECONDS:
                frame = sys._current_frames().get(self._thread_id)
                self._place = None if frame is None else _place_of(frame)


def _place_of(frame: FrameType) -> str:
    """Return the innermost line of our own code on a stack, or else of any code."""
    own: FrameType | None = frame
    while own is not None and _module_of(own).partition(".")[0] not in OWN_PACKAGES:
        own = own.f_back
    own = own or frame
    return f"{_module_of(own)}:{own.f_lineno} {own.f_code.co_name}"


def _module_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))
