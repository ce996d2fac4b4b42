"""Failure: one failed try of a call, and whether and where it is tried again."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Literal, NamedTuple

from assay_models.engines.errors import EngineError
from assay_models.engines.http import ConnectionFailed, Reply
from assay_models.engines.listener import CallOutcome

Again = Literal["never", "anywhere", "elsewhere"]
"""`elsewhere`: once, at another URL."""

UNAVAILABLE = frozenset((408, 502, 503, 504))
ROW_REFUSALS = frozenset((400, 413, 422))
"""Statuses of a call that a single row of it may have caused."""
DENIED = frozenset((401, 403))
MAX_RETRY_AFTER_SECONDS = 86_400.0


class Failure(NamedTuple):
    """A failed try. `is_fault`: the URL is at fault, and its circuit breaker counts it."""

    error: EngineError
    outcome: CallOutcome
    again: Again = "never"
    is_fault: bool = True


def of_reply(reply: Reply) -> Failure | None:
    """Return the failure that a status other than 200 is; None for 200."""
    status = reply.status
    if status == HTTPStatus.OK:
        return None
    if status in UNAVAILABLE:
        return Failure(_unavailable(reply), "unavailable", "anywhere")
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return Failure(_unavailable(reply), "overloaded", "anywhere", is_fault=False)
    if 400 <= status < 500 and status != HTTPStatus.FAILED_DEPENDENCY:
        return Failure(_refused(status), "refused", is_fault=False)
    if status >= 400:
        text = f"the engine failed with status {status}"
        error = EngineError("engine_unavailable", text, may_be_one_row=True)
        return Failure(error, "failed", "elsewhere")
    return of_bad_reply(f"its status is {status}")


def of_connection(error: ConnectionFailed) -> Failure:
    """Return the failure of a connection."""
    if error.had_status:
        return of_bad_reply(f"it broke off ({error.kind})")
    text = f"no connection to the engine, or it closed without a reply ({error.kind})"
    return Failure(EngineError("engine_unavailable", text), "unavailable", "anywhere")


def of_bad_reply(problem: str | EngineError) -> Failure:
    """Return the failure of a reply with status 200 that cannot be trusted."""
    if isinstance(problem, str):
        text = f"the engine's reply cannot be used: {problem}"
        problem = EngineError("engine_bad_reply", text, may_be_one_row=True)
    return Failure(problem, "bad_reply", "elsewhere")


def of_timeout(seconds: float, again: Again, *, is_fault: bool) -> Failure:
    """Return the failure of a try that got no whole reply within these seconds."""
    text = f"no reply of the engine within {seconds:.3g} seconds"
    return Failure(EngineError("engine_timeout", text), "timeout", again, is_fault)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that `Retry-After` names, as a number or a date, a day at most; None
    without a valid one."""
    value = headers.get("retry-after", "").strip()
    try:
        seconds = float(value)
    except ValueError:
        seconds = _seconds_until(value)
    is_valid = math.isfinite(seconds) and seconds >= 0
    return min(seconds, MAX_RETRY_AFTER_SECONDS) if is_valid else None


def _seconds_until(date: str) -> float:
    try:
        moment = parsedate_to_datetime(date)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return max(0.0, (moment - datetime.now(UTC)).total_seconds())
    except (ValueError, OverflowError):  # no date, or one beyond the calendar
        return math.nan


def _unavailable(reply: Reply) -> EngineError:
    return EngineError(
        "engine_unavailable",
        f"the engine takes no work now (status {reply.status})",
        retry_after=retry_after(reply.headers),
    )


def _refused(status: int) -> EngineError:
    text = f"the engine refused the call with status {status}"
    if status in DENIED:
        text += ": check the key in the card's `engine.api_key_file`"
    elif status == HTTPStatus.NOT_FOUND:
        text += ": check the card's `engine.model`, `engine.protocol` and `engine.urls`"
    return EngineError(
        "engine_refused", text, retryable=False, may_be_one_row=status in ROW_REFUSALS
    )
