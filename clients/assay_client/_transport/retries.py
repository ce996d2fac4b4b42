"""When to try again, and after which wait."""

from __future__ import annotations

import re
import threading
from datetime import timezone
from email.utils import parsedate_to_datetime
from typing import Union

from assay_client.errors import APIConnectionError, APIStatusError

_FIRST_WAIT_S = 0.25
_LONGEST_WAIT_S = 8.0
_SECONDS = re.compile(r"[0-9]+(\.[0-9]+)?")

Failure = Union[APIConnectionError, APIStatusError]


class RetryBudget:
    """Bounds how much load retries add while nothing succeeds.

    Each retry that the server did not ask for takes one token, each success returns half of one.
    During an outage a client so stops multiplying its requests after `capacity` retries.
    """

    def __init__(self, capacity: float = 1000.0) -> None:
        self._lock = threading.Lock()
        self._capacity = capacity
        self._tokens = capacity

    def take(self) -> bool:
        """Take a token, if there is one."""
        with self._lock:
            if self._tokens < 1.0:
                return False
            self._tokens -= 1.0
            return True

    def give_back(self) -> None:
        """A call succeeded."""
        with self._lock:
            self._tokens = min(self._capacity, self._tokens + 0.5)


def retry_after(failure: Failure) -> float | None:
    """The seconds that the server asked to wait, if it did."""
    return failure.retry_after if isinstance(failure, APIStatusError) else None


def may_retry(failure: Failure) -> bool:
    """Whether the same request may be sent again. Scoring has no effect that a second time would
    double, so a lost reply is asked for again."""
    return failure.retryable if isinstance(failure, APIStatusError) else True


def wait(failure: Failure, attempt: int, chance: float) -> float:
    """Seconds to wait after the given attempt (0 is the first), never less than the server asked.

    Without such a wish: exponential back-off with full jitter (Brooker, "Exponential Backoff And
    Jitter", 2015). With one, the jitter comes on top, so that all who were refused together do
    not return together.
    """
    asked = retry_after(failure)
    if asked is not None:
        return asked + chance * _FIRST_WAIT_S
    return chance * min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0 ** min(attempt, 16))


def parse_retry_after(value: str | None, wall: float) -> float | None:
    """Seconds from a `Retry-After` header, which holds seconds or an HTTP date; None where it
    holds neither.

    Args:
        value: the header.
        wall: the time now, in seconds since the epoch.
    """
    if value is None:
        return None
    if _SECONDS.fullmatch(value.strip()):
        return float(value)
    try:
        date = parsedate_to_datetime(value)
        aware = date if date.tzinfo else date.replace(tzinfo=timezone.utc)
        return max(0.0, aware.timestamp() - wall)
    except (ValueError, TypeError, OverflowError):
        return None
