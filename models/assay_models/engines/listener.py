"""EngineListener: the events of the calls to engines, for metrics."""

from typing import Literal, NamedTuple, Protocol

BreakerState = Literal["closed", "half_open", "open"]
CallOutcome = Literal[
    "ok", "refused", "overloaded", "unavailable", "failed", "bad_reply", "timeout", "cancelled"
]


class Place(NamedTuple):
    """One URL of a model's engines: the model's id, and the number of the URL in its card."""

    model: str
    url: int


class EngineListener(Protocol):
    """Receiver of events. Its methods return at once and raise nothing."""

    def on_call(self, place: Place, outcome: CallOutcome, seconds: float, rows: int) -> None:
        """Take note of one finished try of a call."""

    def on_retry(self, place: Place, outcome: CallOutcome) -> None:
        """Take note that a try with this outcome is followed by another one."""

    def on_breaker(self, place: Place, state: BreakerState) -> None:
        """Take note of a circuit breaker's new state."""

    def on_in_flight(self, place: Place, calls: int) -> None:
        """Take note of the number of calls in flight."""


class _Silent:
    """A listener that ignores all events."""

    def on_call(self, place: Place, outcome: CallOutcome, seconds: float, rows: int) -> None:
        return

    def on_retry(self, place: Place, outcome: CallOutcome) -> None:
        return

    def on_breaker(self, place: Place, state: BreakerState) -> None:
        return

    def on_in_flight(self, place: Place, calls: int) -> None:
        return


SILENT: EngineListener = _Silent()
