"""Retry policy: which failures are retried, and after which wait."""

from __future__ import annotations

import re
import threading
from datetime import timezone
from email.utils import parsedate_to_datetime
from typing import Union

from assay_client.errors import APIConnectionError, APIStatusError

_FIRST_WAIT_SECONDS = 0.25
_MAX_WAIT_SECONDS = 8.0
_SECONDS = re.compile(r"[0-9]+(\.[0-9]+)?")

Failure = Union[APIConnectionError, APIStatusError]


class RetryBudget:
    """A token bucket that bounds the load of retries while nothing succeeds.

    Each retry that the server did not ask for takes one token, each success returns half a token.
    During an outage a client thus stops multiplying its requests after `capacity` retries.
    """

    def __init__(self, capacity: float = 1000.0) -> None:
        self._lock = threading.Lock()
        self._capacity = capacity
        self._tokens = capacity

    def take(self) -> bool:
        """Take a token; return whether there was one."""
        with self._lock:
            if self._tokens < 1.0:
                return False
            self._tokens -= 1.0
            return True

    def record_success(self) -> None:
        """Return half a token."""
        with self._lock:
            self._tokens = min(self._capacity, self._tokens + 0.5)


def retry_after(failure: Failure) -> float | None:
    """Return the seconds that the server asked to wait, if it did."""
    return failure.retry_after if isinstance(failure, APIStatusError) else None


def may_retry(failure: Failure) -> bool:
    """Return whether the same request may be sent again.

    Scoring is idempotent, so a request whose reply was lost is sent again.
    """
    return failure.retryable if isinstance(failure, APIStatusError) else True


def is_starting(failure: Failure) -> bool:
    """Return whether the server is loading the model, and says when to ask again."""
    return (
        isinstance(failure, APIStatusError)
        and failure.code == "model_not_ready"
        and failure.retry_after is not None
    )


def wait_seconds(failure: Failure, attempt: int, jitter: float) -> float:
    """Return the seconds to wait after an attempt, never less than the server asked.

    If the server did not ask: exponential back-off with full jitter (Brooker, "Exponential Backoff
    And Jitter", 2015). If it did, the jitter is added, so that clients that were refused together
    do not return together.

    Args:
        failure: the reason for the retry.
        attempt: 0 for the first.
        jitter: uniform in [0, 1).
    """
    asked = retry_after(failure)
    if asked is not None:
        return asked + jitter * _FIRST_WAIT_SECONDS
    return jitter * min(_MAX_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2.0 ** min(attempt, 16))


def parse_retry_after(value: str | None, wall: float) -> float | None:
    """Return the seconds of a `Retry-After` header, which holds seconds or an HTTP date.

    Args:
        value: the header.
        wall: the time now, in seconds since the epoch.

    Returns:
        The seconds; None if the header is missing or holds neither.
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
