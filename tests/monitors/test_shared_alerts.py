"""Alerts of servers that share a database: each change is found, kept and sent by one of them."""

from collections.abc import Iterator

import pytest

from assay_monitors.alerts import AlertChange
from assay_monitors.postgres import PostgresDatabase
from assay_monitors.retention import Retention
from assay_monitors.shared_alerts import SharedAlerts
from assay_monitors.store import RunStore

from .stores import changes_of
from .test_alerts import brief, health, rule

BEGUN = [("firing", "null_share", "warn", 5)]
ENDED = [("resolved", "null_share", "warn", 5)]


@pytest.fixture
def database(postgres_url: str) -> Iterator[PostgresDatabase]:
    database = PostgresDatabase(postgres_url)
    yield database
    database.close()


@pytest.fixture
def servers(database: PostgresDatabase) -> Iterator[tuple[SharedAlerts, SharedAlerts]]:
    servers = SharedAlerts(database.connect), SharedAlerts(database.connect, lease=0.0)
    yield servers
    for server in servers:
        server.close()


def ids(changes: list[AlertChange]) -> list[str]:
    return [change.id for change in changes]


def test_a_change_is_returned_to_the_first_server_alone(
    servers: tuple[SharedAlerts, SharedAlerts],
) -> None:
    first, second = servers
    mark = second.mark()
    assert brief(first.update(health("r", rule("warn")), first.mark())) == BEGUN
    assert second.update(health("r", rule("warn")), mark) == []
    assert brief(second.update(health("r", rule(None, None)), second.mark())) == ENDED
    assert first.update(health("r", rule(None, None)), first.mark()) == []


def test_an_evaluation_of_earlier_data_changes_nothing(
    database: PostgresDatabase, servers: tuple[SharedAlerts, SharedAlerts]
) -> None:
    first, second = servers
    earlier = first.mark()
    store = RunStore(database, Retention(), lambda: 1.0)
    store.write(changes_of("r", 5))
    store.close()
    assert brief(second.update(health("r", rule("warn")), second.mark())) == BEGUN
    assert first.update(health("r", rule(None, None)), earlier) == []


def test_a_change_that_its_server_does_not_deliver_is_claimed_by_another(
    servers: tuple[SharedAlerts, SharedAlerts],
) -> None:
    first, second = servers
    changes = second.update(health("r", rule("warn")), second.mark())
    assert ids(first.claim(())) == ids(changes)
    assert first.claim(()) == second.claim(()) == []
    first.settle(ids(changes))
    second.claim(ids(changes))
    assert first.claim(()) == []


def test_alerts_of_a_deleted_run_end_once_and_those_of_a_renamed_run_go_on(
    database: PostgresDatabase, servers: tuple[SharedAlerts, SharedAlerts]
) -> None:
    first, second = servers
    store = RunStore(database, Retention(), lambda: 1.0)
    store.write(changes_of("r", 5))
    first.update(health("r", rule("warn")), first.mark())
    assert store.edit("r", name="s") == "done"
    assert second.forget("r") == []
    assert second.update(health("s", rule("warn")), second.mark()) == []
    assert store.delete("s") == "done"
    assert [change.alert.run for change in second.forget("s")] == ["s"]
    assert first.forget("s") == []
    store.close()
