"""Webhook: tells a URL of each alert, on a thread of its own, and never makes anybody wait."""

import base64
import binascii
import hashlib
import hmac
import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from typing import NamedTuple

import httpx2
import orjson

from assay.metrics import AlertSeries
from assay_monitors.alerts import AlertChange

logger = logging.getLogger(__name__)

CAPACITY = 256
ATTEMPTS = 5
TIMEOUT_SECONDS = 5.0
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
# What waits is still sent while the server stops, each once, for so long.
CLOSING_SECONDS = 2.0
SECRET_PREFIX = "whsec_"  # noqa: S105 the prefix that marks one, and none itself
LEAST_SECRET, LONGEST_SECRET = 24, 64
TRANSIENT = frozenset((408, 425, 429))


class _Answer(NamedTuple):
    """Whether it was taken; else whether another try may help, after how long; what happened."""

    taken: bool
    transient: bool
    wait: float
    what: str


class Webhook:
    """Sends one POST for each alert that begins, changes its severity or ends.

    `send` appends to a bounded queue; what does not fit is dropped and counted. One thread delivers
    in order: an answer of 2xx is a delivery; a failed connection, a timeout, 408, 425, 429 and 5xx
    are tried again, five times in all, each pause twice the last; anything else is given up at
    once. Redirects are not followed: a secret URL stays with whom it was given to.

    Requests are signed as Standard Webhooks 1.0 says (`webhook-id`, `webhook-timestamp`,
    `webhook-signature`), where there is a secret. The id is the same in each try, and of each
    server that tells of the same alert, so that a receiver can tell what it has seen.

    Args:
        url: to post to, see `checked_url`.
        key: to sign with, see `secret_key`; None for no signature.
        series: where counts go.
        clock: seconds since the epoch.
        first_pause: seconds before the second try.
    """

    def __init__(
        self,
        url: httpx2.URL,
        key: bytes | None,
        series: AlertSeries,
        clock: Callable[[], float],
        first_pause: float = FIRST_PAUSE,
    ) -> None:
        self._url = url
        self._key = key
        self._series = series
        self._clock = clock
        self._first_pause = first_pause
        self._waiting: deque[AlertChange] = deque()
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="assay-webhook", daemon=True)

    def start(self) -> None:
        """Begin to deliver."""
        self._thread.start()

    def send(self, change: AlertChange) -> None:
        """Queue an alert; never waits and never fails."""
        with self._changed:
            fits = not self._closing.is_set() and len(self._waiting) < CAPACITY
            if fits:
                self._waiting.append(change)
                self._changed.notify()
        if not fits:
            self._series.count("dropped")

    def close(self, timeout: float = CLOSING_SECONDS) -> None:
        """Send what waits, each once, for `timeout` seconds at most; then drop and count it."""
        with self._changed:
            self._closing.set()
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(timeout)
        with self._changed:
            left = len(self._waiting)
            self._waiting.clear()
        self._series.count("dropped", left)

    def _work(self) -> None:
        with httpx2.Client(timeout=TIMEOUT_SECONDS) as client:
            while (change := self._next()) is not None:
                self._series.count("sent" if self._delivered(client, change) else "failed")

    def _next(self) -> AlertChange | None:
        with self._changed:
            while not self._waiting and not self._closing.is_set():
                self._changed.wait()
            return self._waiting.popleft() if self._waiting else None

    def _delivered(self, client: httpx2.Client, change: AlertChange) -> bool:
        """Whether the receiver took it, in the end."""
        pause, wait = self._first_pause, 0.0
        for attempt in range(ATTEMPTS):
            if attempt and self._closing.wait(wait):
                break
            answer = self._tried(client, change)
            if answer.taken:
                return True
            if not answer.transient:
                break
            pause, wait = min(2 * pause, LONGEST_PAUSE), max(pause, answer.wait)
        logger.warning("%s was not taken by %s", change.id, self._url.host)
        return False

    def _tried(self, client: httpx2.Client, change: AlertChange) -> _Answer:
        body = _body(change)
        headers = self._headers(change.id, body)
        try:
            # Of the answer only the head is read: a long body costs nothing.
            with client.stream("POST", self._url, content=body, headers=headers) as reply:
                answer = _judged(reply.status_code, reply.headers.get("retry-after", ""))
        except httpx2.RequestError as error:
            answer = _Answer(False, True, 0.0, type(error).__name__)
        if not answer.taken:
            logger.info("%s, told of an alert: %s", self._url.host, answer.what)
        return answer

    def _headers(self, name: str, body: bytes) -> dict[str, str]:
        stamp = str(int(self._clock()))
        headers = {
            "content-type": "application/json",
            "webhook-id": name,
            "webhook-timestamp": stamp,
        }
        if self._key is not None:
            signed = b".".join((name.encode(), stamp.encode(), body))
            digest = hmac.digest(self._key, signed, hashlib.sha256)
            headers["webhook-signature"] = "v1," + base64.b64encode(digest).decode()
        return headers


def _body(change: AlertChange) -> bytes:
    kind = f"run.alert.{change.kind}"
    return orjson.dumps({"type": kind, "id": change.id, "data": asdict(change.alert)})


def _judged(status: int, later: str) -> _Answer:
    wait = min(float(later), LONGEST_PAUSE) if later.isascii() and later.isdigit() else 0.0
    return _Answer(200 <= status < 300, status >= 500 or status in TRANSIENT, wait, f"{status}")


def checked_url(text: str) -> httpx2.URL:
    """A URL to post to.

    Raises:
        ValueError: it is none, or neither `http` nor `https`; the text does not repeat it.
    """
    try:
        url = httpx2.URL(text)
    except httpx2.InvalidURL:
        raise ValueError("this is no URL") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError("a URL to post to begins with http:// or https:// and names a host")
    return url


def secret_key(secret: str) -> bytes:
    """The key in a secret of Standard Webhooks: `whsec_` and 24 to 64 bytes in base64.

    Raises:
        ValueError: it is none; the text does not repeat it.
    """
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(SECRET_PREFIX) or not LEAST_SECRET <= len(key) <= LONGEST_SECRET:
        raise ValueError(
            f"a secret is {SECRET_PREFIX} and {LEAST_SECRET} to {LONGEST_SECRET} random bytes in "
            "base64: echo whsec_$(openssl rand -base64 32)"
        )
    return key
