"""AlertHandover: sends the alerts that another server of a shared database has left undelivered."""

import threading
from contextlib import suppress
from pathlib import Path

from assay.runs.storage import Place
from assay.runs.webhook import Webhook
from assay_monitors.alerts import AlertMemory
from assay_monitors.database import STORE_ERRORS
from assay_monitors.shared_alerts import SharedAlerts

POLL_SECONDS = 5.0
CLOSING_SECONDS = 5.0


def share_alerts(place: Place | None, webhook: Webhook | None) -> AlertMemory | None:
    """Return the memory of alerts in a shared database, whose servers send each of them once.

    Returns:
        None for a file, and without a webhook.
    """
    if place is None or isinstance(place, Path) or webhook is None:
        return None
    alerts = SharedAlerts(place.connect)
    webhook.handover = AlertHandover(alerts)
    return alerts


class AlertHandover:
    """A thread that takes over alerts that another server has not delivered in time.

    Args:
        alerts: the alerts in the shared database.
        poll: seconds between two polls of the database.
    """

    def __init__(self, alerts: SharedAlerts, *, poll: float = POLL_SECONDS) -> None:
        self._alerts = alerts
        self._poll = poll
        self._settled: set[str] = set()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._is_closing = False
        self._thread: threading.Thread | None = None

    def start(self, webhook: Webhook) -> None:
        """Start to take over alerts, which the webhook sends."""
        self._thread = threading.Thread(
            target=self._run, args=(webhook,), name="assay-handover", daemon=True
        )
        self._thread.start()

    def settle(self, name: str) -> None:
        """Take in that the alert with this id needs no sending any more; never waits."""
        with self._lock:
            self._settled.add(name)
        self._wake.set()

    def close(self) -> None:
        """Stop, after what was settled until now is stored, within five seconds."""
        self._is_closing = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(CLOSING_SECONDS)
            if self._thread.is_alive():  # the database hangs, and its connection with it
                return
        self._alerts.close()

    def _run(self, webhook: Webhook) -> None:
        while not self._is_closing:
            with suppress(*STORE_ERRORS):  # what is pending stays in the database
                self._iterate(webhook)
            self._wake.wait(self._poll)
            self._wake.clear()
        with suppress(*STORE_ERRORS):
            self._forget_settled()

    def _iterate(self, webhook: Webhook) -> None:
        self._forget_settled()
        for change in self._alerts.claim(webhook.pending):
            webhook.send(change)

    def _forget_settled(self) -> None:
        with self._lock:
            settled = set(self._settled)
        if settled:
            self._alerts.settle(settled)
            with self._lock:
                self._settled -= settled
