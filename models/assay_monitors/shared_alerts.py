"""SharedAlerts: alerts of servers that share a PostgreSQL database, each sent by one of them.

Which alerts fire is stored in the database, and so is each change until it is delivered. The server
that found a change sends it; where that server ends first, another one does.
"""

import json
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace

from assay_monitors.alerts import Alert, AlertChange, AlertKey, Firing, compare_alerts
from assay_monitors.database import Connection
from assay_monitors.reports import RunHealth

LEASE_SECONDS = 30.0
"""Seconds after which a change that its server has neither delivered nor renewed is sent anew."""
NOW = "CAST(extract(epoch FROM clock_timestamp()) AS DOUBLE PRECISION)"
MARK = "SELECT CAST(CAST(pg_snapshot_xmax(pg_current_snapshot()) AS TEXT) AS BIGINT)"


class SharedAlerts:
    """Memory of alerts in a database, and the changes that wait to be delivered. Thread-safe.

    Args:
        connect: returns a writer's connection, on first use.
        lease: seconds until another server sends what this one does not.
    """

    def __init__(self, connect: Callable[[], Connection], lease: float = LEASE_SECONDS) -> None:
        self._connect = connect
        self._lease = lease
        self._lock = threading.Lock()
        self._connection: Connection | None = None

    def mark(self) -> int:
        """Return the age of what is read from now on: the number of the next transaction.

        Raises:
            StoreUnavailableError: the database cannot be used now; so do the other methods.
        """
        with self._lock:
            if self._connection is None:
                self._connection = self._connect()
            with self._connection.snapshot():
                return int(self._connection.execute(MARK).fetchone()[0])

    def update(self, health: RunHealth, mark: int = 0) -> list[AlertChange]:
        """Take in a run's health that was read after `mark`; return the changes to send.

        None are where another server has taken in what was read later.
        """
        with self._transaction() as connection:
            before, known = _read(connection, health.run)
            (now,) = connection.execute(MARK).fetchone()
            # A mark that lies in the future is that of a server from which the database was copied.
            if mark < known <= now:
                return []
            firing, changes = compare_alerts(before, health)
            alerts = json.dumps([asdict(alert) for alert in firing.values()])
            connection.execute(
                "INSERT INTO alerts VALUES (?, ?, ?) ON CONFLICT (run) DO UPDATE"
                " SET mark = excluded.mark, firing = excluded.firing",
                (health.run, mark, alerts),
            )
            self._keep(connection, changes)
        return changes

    def forget(self, run: str) -> list[AlertChange]:
        """Forget a run that is no longer kept; return its alerts, which end with it."""
        with self._transaction() as connection:
            before, _ = _read(connection, run)
            connection.execute("DELETE FROM alerts WHERE run = ?", (run,))
            changes = [AlertChange("resolved", alert) for alert in before.values()]
            self._keep(connection, changes)
        return changes

    def rename(self, run: str, name: str) -> None:
        """Do nothing: the store has renamed them with the run."""

    def claim(self, own: Collection[str]) -> list[AlertChange]:
        """Return the changes that another server has not delivered in time, to send them here.

        Args:
            own: the ids of changes that are being sent here, which are kept for longer.
        """
        with self._transaction() as connection:
            if own:
                places = ", ".join("?" * len(own))
                connection.execute(
                    f"UPDATE undelivered SET until = {NOW} + ? WHERE id IN ({places})",  # noqa: S608
                    (self._lease, *own),
                )
            rows = connection.execute(
                f"UPDATE undelivered SET until = {NOW} + ? WHERE until < {NOW} RETURNING change",  # noqa: S608
                (self._lease,),
            ).fetchall()
        return [_change(text) for (text,) in rows]

    def settle(self, ids: Collection[str]) -> None:
        """Take in that changes were delivered, or given up."""
        with self._transaction() as connection:
            for name in ids:
                connection.execute("DELETE FROM undelivered WHERE id = ?", (name,))

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()

    def _keep(self, connection: Connection, changes: list[AlertChange]) -> None:
        for change in changes:
            connection.execute(
                f"INSERT INTO undelivered VALUES (?, ?, {NOW} + ?) ON CONFLICT (id)"  # noqa: S608
                " DO UPDATE SET until = excluded.until",
                (change.id, json.dumps(asdict(change)), self._lease),
            )

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with self._lock:
            if self._connection is None:
                self._connection = self._connect()
            with self._connection.transaction():
                yield self._connection


def _read(connection: Connection, run: str) -> tuple[Firing, int]:
    """Return the alerts of a run that fire, and the mark with which they were stored."""
    row = connection.execute("SELECT firing, mark FROM alerts WHERE run = ?", (run,)).fetchone()
    if row is None:
        return {}, 0
    alerts = [replace(Alert(**values), run=run) for values in json.loads(row[0])]
    return {AlertKey.of(alert): alert for alert in alerts}, int(row[1])


def _change(text: str) -> AlertChange:
    values = json.loads(text)
    return AlertChange(values["kind"], Alert(**values["alert"]))
