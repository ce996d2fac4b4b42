"""CircuitBreaker: whether one URL is worth a call, learned from the calls that were made."""

from collections.abc import Callable

from assay_models.engines.listener import BreakerState

FAILURES_TO_OPEN = 5
FIRST_OPEN_SECONDS = 1.0
MAX_OPEN_SECONDS = 30.0


class CircuitBreaker:
    """A breaker that opens after `FAILURES_TO_OPEN` consecutive failures.

    Open, it lets no call through. After a pause it is half-open and lets one call through: its
    success closes the breaker, its failure opens it again for twice the pause, up to
    `MAX_OPEN_SECONDS`.

    Args:
        clock: monotonic seconds.
        on_change: called with each new state.
    """

    def __init__(
        self, clock: Callable[[], float], on_change: Callable[[BreakerState], None]
    ) -> None:
        self._clock = clock
        self._on_change = on_change
        self._state: BreakerState = "closed"
        self._failures = 0
        self._pause = FIRST_OPEN_SECONDS
        self._opens_until = 0.0
        self._calls = 0
        self._trial: int | None = None
        on_change("closed")

    @property
    def state(self) -> BreakerState:
        """The state now."""
        if self._state == "open" and self._clock() >= self._opens_until:
            self._change("half_open")
        return self._state

    @property
    def allows_call(self) -> bool:
        """Whether a call may be made now."""
        return self.state == "closed" or (self._state == "half_open" and self._trial is None)

    @property
    def retry_after(self) -> float:
        """Seconds until a call may be made; 0 if one may be made now or is on trial."""
        return max(0.0, self._opens_until - self._clock()) if self.state == "open" else 0.0

    def invite(self) -> None:
        """Let one call through now if it is open: the URL has answered another question."""
        if self.state == "open":
            self._change("half_open")

    def begin(self) -> int:
        """Count a call that begins; return its number."""
        self._calls += 1
        if self.state == "half_open":
            self._trial = self._calls
        return self._calls

    def succeed(self) -> None:
        """Count a call that the URL answered, whatever it answered to this one."""
        self._failures, self._pause, self._trial = 0, FIRST_OPEN_SECONDS, None
        if self._state != "closed":
            self._change("closed")

    def fail(self, call: int) -> None:
        """Count a call that the URL did not answer properly. Late failures of calls that began
        before it opened count for nothing."""
        self._failures += 1
        if call == self._trial:
            self._pause = min(2 * self._pause, MAX_OPEN_SECONDS)
            self._open()
        elif self._state == "closed" and self._failures >= FAILURES_TO_OPEN:
            self._open()

    def forget(self, call: int) -> None:
        """Count a call without a result, such as a cancelled one."""
        if call == self._trial:
            self._trial = None

    def _open(self) -> None:
        self._trial = None
        self._opens_until = self._clock() + self._pause
        self._change("open")

    def _change(self, state: BreakerState) -> None:
        self._state = state
        self._on_change(state)
