"""Admission: who may write to a run, and the runs, streams and gold sources that find a place."""

from collections.abc import Iterable
from typing import Literal, NamedTuple

from assay_monitors.database import Connection
from assay_monitors.retention import KeptOwner, Retention, delete_run, kept_owners

Refusal = Literal["owner", "runs", "streams", "sources", "deleted"]
"""The reason why something is not recorded.

`owner`: the run belongs to another key; `runs`: no run may make room for a new one; `streams`,
`sources`: the run has as many models and splits, or gold sources, as it may have; `deleted`: they
were recorded before another server deleted the run.
"""


class Writer(NamedTuple):
    """The sender of a change: the name of its key, and whether it may change any run."""

    name: str = ""
    is_admin: bool = True

    def may_change(self, owner: str) -> bool:
        """Return whether it may change a run of this owner; one begun without keys has none."""
        return self.is_admin or owner in (self.name, "")


ANY_WRITER = Writer()


def owner_of(connection: Connection, run: str) -> str | None:
    """Return the owner of a run; None if it is not kept."""
    row = connection.execute(
        "SELECT coalesce(owner, '') FROM runs LEFT JOIN details USING (run) WHERE run = ?", (run,)
    ).fetchone()
    return None if row is None else str(row[0])


def make_room(
    connection: Connection, retention: Retention, owner: str, now: float
) -> Refusal | None:
    """Forget a run, if need be, for a new one of `owner`; inside a transaction of the caller.

    Returns:
        The reason why there is no room; None where there is.
    """
    kept = kept_owners(connection)
    while len(kept) >= retention.runs:
        leaver = replaceable(kept, retention, owner, now)
        if leaver is None:
            return "runs"
        delete_run(connection, leaver.run)
        kept.remove(leaver)
    return None


def replaceable(
    kept: Iterable[KeptOwner], retention: Retention, owner: str, now: float
) -> KeptOwner | None:
    """Return the run that is forgotten for a new one of `owner`; None if there is none.

    An owner that has its share of the runs gives up its own that was seen longest ago, if that is
    old enough. One that has less takes the place of a run of the owner that has most, which has
    more than its share.
    """
    by_owner: dict[str, list[KeptOwner]] = {owner: []}
    for run in kept:
        by_owner.setdefault(run.owner, []).append(run)
    share = retention.runs // len(by_owner)
    if len(by_owner[owner]) >= share:
        return next(
            (
                run
                for run in by_owner[owner]
                if not run.is_pinned and run.last_seen <= now - retention.min_age
            ),
            None,
        )
    largest = max(by_owner.values(), key=len)
    return next((run for run in largest if not run.is_pinned), None)


class Places:
    """The streams and gold sources of runs, as a transaction adds to them.

    A run is only read where something new asks for a place.
    """

    def __init__(self, connection: Connection, retention: Retention) -> None:
        self._connection = connection
        self._retention = retention
        self._streams: dict[str, set[tuple[str, ...]]] = {}
        self._sources: dict[str, set[tuple[str, ...]]] = {}

    def has_stream(self, run: str, model: str, split: str) -> bool:
        """Return whether a stream has a place in its run. The trainer's own always has."""
        if not model:
            return True
        return self._has(
            ("windows", "model, split", self._retention.streams), self._streams, run, (model, split)
        )

    def has_source(self, run: str, source: str) -> bool:
        """Return whether a gold source has a place in its run."""
        limit = self._retention.sources
        return self._has(("gold", "source", limit), self._sources, run, (source,))

    def _has(
        self,
        place: tuple[str, str, int],
        known: dict[str, set[tuple[str, ...]]],
        run: str,
        names: tuple[str, ...],
    ) -> bool:
        table, columns, limit = place
        places = ", ".join("?" * len(names))
        if (
            names in known.get(run, ())
            or self._connection.execute(
                f"SELECT 1 FROM {table} WHERE run = ? AND ({columns}) = ({places}) LIMIT 1",  # noqa: S608
                (run, *names),
            ).fetchone()
        ):
            return True
        if run not in known:
            query = f"SELECT DISTINCT {columns} FROM {table} WHERE run = ?"  # noqa: S608 our own names
            known[run] = {row for row in self._connection.execute(query, (run,)) if row[0]}
        if len(known[run]) >= limit:
            return False
        known[run].add(names)
        return True
