"""Webhook: posts each alert to a URL, on a thread of its own; queueing an alert never waits."""

import asyncio
import base64
import binascii
import hashlib
import hmac
import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from typing import NamedTuple, Protocol

import httpx2
import orjson

from assay.metric_series import AlertSeries
from assay_monitors.alerts import AlertChange

logger = logging.getLogger(__name__)

MAX_WAITING_ALERTS = 256
MAX_ATTEMPTS = 5
ATTEMPT_SECONDS = 10.0
FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 1.0, 30.0
# While the server stops, each waiting alert is still sent once, within this time.
CLOSING_SECONDS = 2.0
SECRET_PREFIX = "whsec_"  # noqa: S105 the prefix of a secret, not a secret
MIN_SECRET_BYTES, MAX_SECRET_BYTES = 24, 64
TRANSIENT = frozenset((408, 425, 429))


class _Attempt(NamedTuple):
    """The outcome of one attempt to deliver an alert.

    `is_retryable` and `wait` (seconds) apply to an alert that was not delivered; `reason` is for
    the log.
    """

    is_delivered: bool
    is_retryable: bool
    wait: float
    reason: str


class Handover(Protocol):
    """Keeper of alerts that another server sends if this one ends before."""

    def start(self, webhook: "Webhook") -> None:
        """Start to take over alerts, which the webhook sends."""
        ...

    def settle(self, name: str) -> None:
        """Take in that the alert with this id needs no sending any more; never waits."""
        ...

    def close(self) -> None:
        """Stop, after what was settled until now is stored."""
        ...


class Webhook:
    """Sender of one POST for each alert that begins, changes its severity or ends.

    `send` appends to a bounded queue; where it is full, the oldest alert is dropped and counted.
    One thread delivers in order. A reply of 2xx is a delivery. A failed connection, 408, 425, 429,
    5xx and an attempt that takes too long, from connecting to the end of the reply's head, are
    retried, five attempts in all, each pause twice the last. Any other reply is final. Redirects
    are not followed, so that a secret URL reaches no other host.

    With a secret, requests are signed according to Standard Webhooks 1.0 (`webhook-id`,
    `webhook-timestamp`, `webhook-signature`). The id of an alert is the same in each attempt and
    from each server, so that a receiver can recognise duplicates.

    Args:
        url: the address to post to, see `parse_webhook_url`.
        key: the key to sign with, see `decode_secret`; None for no signature.
        series: counters of deliveries.
        clock: seconds since the epoch.
        first_pause: seconds before the second attempt.
        attempt_seconds: until an attempt has failed, however much of a reply has come.

    Attributes:
        handover: started and closed with the webhook; settles each alert that was delivered, or
            given up after its last attempt. None where no other server sends alerts of these runs.
    """

    def __init__(
        self,
        url: httpx2.URL,
        *,
        key: bytes | None,
        series: AlertSeries,
        clock: Callable[[], float],
        first_pause: float = FIRST_PAUSE_SECONDS,
        attempt_seconds: float = ATTEMPT_SECONDS,
    ) -> None:
        self._url = url
        self._key = key
        self._series = series
        self._clock = clock
        self._first_pause = first_pause
        self._attempt_seconds = attempt_seconds
        self.handover: Handover | None = None
        self._waiting: deque[AlertChange] = deque()
        self._current: AlertChange | None = None
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="assay-webhook", daemon=True)

    def start(self) -> None:
        """Start to deliver."""
        self._thread.start()
        if self.handover is not None:
            self.handover.start(self)

    def send(self, change: AlertChange) -> None:
        """Queue an alert; never waits and never fails."""
        with self._changed:
            is_closing, is_full = self._closing.is_set(), len(self._waiting) >= MAX_WAITING_ALERTS
            if is_full:
                self._waiting.popleft()
            if not is_closing:
                self._waiting.append(change)
            self._show_waiting()
            self._changed.notify()
        if is_closing or is_full:
            self._series.count("dropped")

    @property
    def pending(self) -> list[str]:
        """The ids of the alerts that wait or are being sent."""
        with self._changed:
            current = [] if self._current is None else [self._current]
            return [change.id for change in (*current, *self._waiting)]

    def close(self, timeout: float = CLOSING_SECONDS) -> None:
        """Send each waiting alert once, within `timeout` seconds; drop and count the rest."""
        with self._changed:
            self._closing.set()
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(timeout)
        with self._changed:
            left = len(self._waiting)
            self._waiting.clear()
            self._show_waiting()
        self._series.count("dropped", left)
        if self.handover is not None:
            self.handover.close()

    def _work(self) -> None:
        # An event loop of this thread's own: only there can a whole exchange have a deadline.
        with asyncio.Runner() as runner:
            while (change := self._next()) is not None:
                is_delivered = self._deliver(runner, change)
                self._series.count("sent" if is_delivered else "failed")
                # What was broken off by the end of the server is not given up: another may send it.
                is_over = is_delivered or not self._closing.is_set()
                if is_over and self.handover is not None:
                    self.handover.settle(change.id)

    def _next(self) -> AlertChange | None:
        with self._changed:
            self._current = None
            self._show_waiting()
            while not self._waiting and not self._closing.is_set():
                self._changed.wait()
            if not self._waiting:
                return None
            self._current = self._waiting.popleft()
            return self._current

    def _show_waiting(self) -> None:
        self._series.waiting.set(len(self.pending))

    def _deliver(self, runner: asyncio.Runner, change: AlertChange) -> bool:
        """Try to deliver an alert; return whether an attempt succeeded."""
        pause, wait = self._first_pause, 0.0
        for number in range(MAX_ATTEMPTS):
            if number and self._closing.wait(wait):
                break
            attempt = runner.run(self._attempt(change))
            if attempt.is_delivered:
                return True
            if not attempt.is_retryable:
                break
            pause, wait = min(2 * pause, MAX_PAUSE_SECONDS), max(pause, attempt.wait)
        logger.warning("%s was not taken by %s", change.id, self._url.host)
        return False

    async def _attempt(self, change: AlertChange) -> _Attempt:
        body = _body(change)
        headers = self._headers(change.id, body)
        try:
            # Only the head of the reply is read, which is bounded; a long body costs nothing.
            async with (
                asyncio.timeout(self._attempt_seconds),
                httpx2.AsyncClient(timeout=None) as client,
                client.stream("POST", self._url, content=body, headers=headers) as reply,
            ):
                attempt = _classify(reply.status_code, reply.headers.get("retry-after", ""))
        except (httpx2.RequestError, TimeoutError) as error:
            attempt = _Attempt(False, True, 0.0, type(error).__name__)
        if not attempt.is_delivered:
            logger.info("%s did not accept an alert: %s", self._url.host, attempt.reason)
        return attempt

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


def _classify(status: int, retry_after: str) -> _Attempt:
    is_number = retry_after.isascii() and retry_after.isdigit()
    wait = min(float(retry_after), MAX_PAUSE_SECONDS) if is_number else 0.0
    return _Attempt(200 <= status < 300, status >= 500 or status in TRANSIENT, wait, f"{status}")


def parse_webhook_url(text: str) -> httpx2.URL:
    """Return the URL to post alerts to.

    Raises:
        ValueError: `text` is not a URL, or neither `http` nor `https`; the message does not
            repeat it.
    """
    try:
        url = httpx2.URL(text)
    except httpx2.InvalidURL:
        raise ValueError("this is no URL") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError("a URL to post to begins with http:// or https:// and names a host")
    return url


def decode_secret(secret: str) -> bytes:
    """Return the key in a secret of Standard Webhooks: `whsec_` and 24 to 64 bytes in base64.

    Raises:
        ValueError: `secret` has another form; the message does not repeat it.
    """
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    fits = MIN_SECRET_BYTES <= len(key) <= MAX_SECRET_BYTES
    if not secret.startswith(SECRET_PREFIX) or not fits:
        raise ValueError(
            f"a secret is {SECRET_PREFIX} and {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} random "
            "bytes in base64: echo whsec_$(openssl rand -base64 32)"
        )
    return key
