"""RedisState: whether Redis works, and if not, the reason and the remedy."""

import logging
import math
import re
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, get_args

from prometheus_client import Gauge
from redis import exceptions as errors

logger = logging.getLogger(__name__)

Operation = Literal["reads", "writes", "claims", "shares"]
OPERATIONS: tuple[Operation, ...] = get_args(Operation)
"""Reads and writes of raws, claims of keys, and shares of API keys."""

# A Redis that comes and goes fills no log: the same reason is repeated after a minute.
REPEAT_SECONDS = 60.0
URL = "ASSAY_REDIS_URL"

# By the reply's text, for errors that share a type. They come before the types.
TEXTS = (
    ("Authentication required", f"it requires a password; write redis://:PASSWORD@HOST in {URL}"),
    (
        "without any password configured|no password is set",
        f"it has no password, and {URL} has one; remove it there",
    ),
    (
        "MASTERDOWN|Link with MASTER is down",
        f"it is a replica without its primary; name the primary in {URL}",
    ),
    (
        "DB index|database index|SELECT is not allowed",
        f"it has no such database; correct the number in {URL}",
    ),
    ("MISCONF", "it cannot save to disk and refuses writes; its own log says why"),
    ("max number of clients", "it has no free connection; raise its maxclients"),
    ("unknown command", "it, or its proxy, does not know one of AUTH, EVAL, MGET, SELECT and SET"),
    ("Protocol Error", f"it does not speak the protocol of Redis; correct {URL}"),
    (
        "[Cc]onnection closed|reset by peer",
        f"it closes the connection; if it expects TLS, write rediss:// in {URL}",
    ),
)
# By type, subclasses first.
TYPES: tuple[tuple[tuple[type[BaseException], ...], str], ...] = (
    (
        (errors.NoPermissionError,),
        "its user may not use MGET and SET on the keys assay:*, or for claims and shares not EVAL"
        " and the commands in its scripts; extend its ACL",
    ),
    (
        (errors.AskError, errors.ClusterCrossSlotError, errors.ClusterError),
        f"it is a Redis Cluster, which is not supported; name a single Redis in {URL}",
    ),
    ((errors.ReadOnlyError,), f"it is a read-only replica; name the primary in {URL}"),
    (
        (errors.OutOfMemoryError,),
        "its memory is full; set its maxmemory-policy to allkeys-lru, or a higher maxmemory",
    ),
    ((errors.BusyLoadingError,), "it is loading its data; it will be used when it has done so"),
    (
        (errors.AuthenticationError, errors.AuthenticationWrongNumberOfArgsError),
        f"it refuses the user or password; correct them in {URL}",
    ),
    (
        (ssl.SSLCertVerificationError,),
        f"its certificate is not trusted; add ?ssl_ca_certs=FILE to {URL}",
    ),
    ((ssl.SSLError,), f"it does not speak TLS; write redis:// instead of rediss:// in {URL}"),
    ((socket.gaierror,), f"its name cannot be resolved; correct the host in {URL}"),
    ((ConnectionRefusedError,), f"it refuses connections; start it, or correct {URL}"),
    (
        (TimeoutError, errors.TimeoutError),
        "it does not answer within ASSAY_REDIS_TIMEOUT; without TLS it would not answer rediss://",
    ),
)


class RedisState:
    """The state of Redis, for /readyz, a metric and the log.

    A warning names the reason when an operation begins to fail, and when its reason changes.

    Args:
        gauge: 1 while Redis works, else 0.
        clock: monotonic seconds.
    """

    def __init__(self, gauge: Gauge, clock: Callable[[], float]) -> None:
        self._gauge = gauge
        self._clock = clock
        self._failures: dict[Operation, str] = {}
        self._has_answered = False
        self._warned: dict[Operation, str] = {}
        self._warned_at = -math.inf
        self._is_warning = False
        gauge.set(0)

    @property
    def state(self) -> str:
        """`connecting`, `working`, or `failing: ` and the reason."""
        if self._failures:
            return f"failing: {'; '.join(sorted(set(self._failures.values())))}"
        return "working" if self._has_answered else "connecting"

    def record_success(self, operation: Operation) -> None:
        """Record that an operation works; what failed for the same reason works too."""
        self._has_answered = True
        past = self._failures.get(operation)
        if past is not None:
            self._failures = {key: text for key, text in self._failures.items() if text != past}
        if not self._failures:
            self._gauge.set(1)
            if self._is_warning:
                self._is_warning = False
                logger.info("Redis works again")

    def record_failure(self, operations: Sequence[Operation], error: BaseException) -> None:
        """Record that some operations fail."""
        reason = reason_of(error)
        self._failures.update(dict.fromkeys(operations, reason))
        self._gauge.set(0)
        now = self._clock()
        has_changed = any(self._warned.get(operation) != reason for operation in operations)
        if has_changed or (not self._is_warning and now - self._warned_at >= REPEAT_SECONDS):
            self._warned.update(dict.fromkeys(operations, reason))
            self._warned_at, self._is_warning = now, True
            used = "" if set(operations) == set(OPERATIONS) else f" for {' and '.join(operations)}"
            logger.warning("Redis is not used%s: %s", used, reason)


def reason_of(error: BaseException) -> str:
    """Return why a call of Redis failed, and the remedy. Neither repeats a reply's text."""
    chain = list(_with_causes(error))
    for pattern, reason in TEXTS:
        if any(re.search(pattern, str(cause)) for cause in chain):
            return reason
    for kinds, reason in TYPES:
        if any(isinstance(cause, kinds) for cause in chain):
            return reason
    return f"{type(error).__name__} in calling it"


def _with_causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and the errors that it stems from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
