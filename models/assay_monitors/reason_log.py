"""ReasonLog: each reason of a failure that repeats is logged once, until it is over."""

import logging

MAX_REASONS = 16
"""The reasons that are kept; one more is not logged before the end."""


class ReasonLog:
    """The reasons of a failure since the latest success.

    Args:
        logger: to write to.
        level: of a failure.
        failure: the line of a failure, before its reason.
        success: the line of the first success after one.
    """

    def __init__(self, logger: logging.Logger, level: int, failure: str, success: str) -> None:
        self._logger = logger
        self._level = level
        self._failure = failure
        self._success = success
        self._reasons: set[str] = set()

    def note_failure(self, error: Exception) -> None:
        """Log the reason, unless it was one already."""
        reason = str(error)
        if reason not in self._reasons and len(self._reasons) < MAX_REASONS:
            self._reasons.add(reason)
            self._logger.log(self._level, "%s: %s", self._failure, reason)

    def note_success(self) -> None:
        """Log that it is over, if it was one."""
        if self._reasons:
            self._reasons.clear()
            self._logger.info(self._success)
