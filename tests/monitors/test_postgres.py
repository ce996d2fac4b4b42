"""Runs in a PostgreSQL database: writers side by side, lost connections, rights and versions."""

import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from unittest.mock import patch

import pytest
from support.postgres import PostgresServer

from assay_monitors.changes import Changes
from assay_monitors.database import (
    CommitInDoubtError,
    ReadTimeoutError,
    StoreError,
    StoreUnavailableError,
    TablesError,
)
from assay_monitors.gold import GoldPoint
from assay_monitors.history import RunHistory, Stream
from assay_monitors.observations import Observation, Window
from assay_monitors.postgres import PostgresDatabase
from assay_monitors.postgres_connection import PostgresConnection
from assay_monitors.recorder import Recorder
from assay_monitors.retention import Retention
from assay_monitors.store import RunStore
from assay_monitors.summaries import summarise

from .stores import CODE, Clock, changes_of, items, stored_items, window

WRITERS = 16
END_SESSIONS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'"


@pytest.fixture
def database(postgres_url: str) -> Iterator[PostgresDatabase]:
    database = PostgresDatabase(postgres_url)
    yield database
    database.close()


@pytest.fixture
def store(database: PostgresDatabase) -> Iterator[RunStore]:
    with closing(store_in(database)) as store:
        yield store


@pytest.fixture
def history(database: PostgresDatabase) -> RunHistory:
    return RunHistory(database)


def store_in(database: PostgresDatabase, **bounds: Any) -> RunStore:
    return RunStore(database, Retention(**bounds), lambda: 50.0)


def end_sessions(server: PostgresServer, url: str) -> None:
    server.execute(END_SESSIONS.format(url.rpartition("/")[2]))


def test_the_sums_of_concurrent_writers_are_exact(
    database: PostgresDatabase, history: RunHistory
) -> None:
    def work(number: int) -> None:
        with closing(store_in(database)) as store:
            for step in range(4):
                summary = summarise([Observation(float(number), group=f"g{number}")] * 3)
                store.write(Changes({Window("r", *CODE, step): summary}))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    points = history.series("r", CODE)
    assert [(point.step, point.summary.items) for point in points] == [
        (step, 3 * WRITERS) for step in range(4)
    ]
    assert {point.summary.score.mean for point in points} == {(WRITERS - 1) / 2}


def test_a_session_that_the_server_ended_is_replaced(
    store: RunStore, history: RunHistory, *, postgres_server: PostgresServer, postgres_url: str
) -> None:
    store.write(changes_of("r", 0))
    assert [run.run for run in history.runs()] == ["r"]
    end_sessions(postgres_server, postgres_url)
    assert [run.run for run in history.runs()] == ["r"]
    store.write(changes_of("r", 0))
    end_sessions(postgres_server, postgres_url)
    assert store.edit("r", note="kept") == "done"
    assert (stored_items(history), history.runs()[0].note) == (2, "kept")


@pytest.mark.parametrize("is_committed", [True, False])
def test_a_commit_that_was_cut_short_is_counted_once(
    store: RunStore, history: RunHistory, *, is_committed: bool
) -> None:
    clock = Clock()
    recorder = Recorder(store, clock)
    recorder.record(window(), items(1))
    recorder.process_queue()
    commit = PostgresConnection._commit

    def cut_short(connection: PostgresConnection) -> None:
        if is_committed:
            commit(connection)
        connection.close()
        raise CommitInDoubtError("the connection was closed")

    recorder.record(window(), items(2))
    recorder.process_queue()
    clock.now += 1
    with patch.object(PostgresConnection, "_commit", cut_short):
        recorder.process_queue()
    recorder.record(window(), items(4))
    clock.now += 1
    recorder.process_queue()
    recorder.record(window(step=1), items(8))
    recorder.close()
    assert (stored_items(history), recorder.counts.written) == (15, 15)
    assert (recorder.counts.dropped, recorder.counts.failed_commits) == (0, 1)


def test_a_server_that_cannot_be_reached_loses_nothing_until_it_can(
    database: PostgresDatabase, history: RunHistory
) -> None:
    clock = Clock()
    with patch.object(database, "_open_prepared", side_effect=TablesError("not yet")):
        store = RunStore(database, Retention(), clock)
        recorder = Recorder(store, clock)
        recorder.record(window(), items(3))
        recorder.process_queue()
        deletion = recorder.delete("r")
        recorder.process_queue()
        assert not recorder.is_durable
        with pytest.raises(StoreUnavailableError):
            deletion.result(timeout=0)
    database._gate._error = None  # a second has passed
    clock.now += 1
    recorder.process_queue()
    assert (stored_items(history), recorder.counts.written) == (3, 3)
    recorder.close()


def test_what_waits_of_a_run_that_another_server_deleted_does_not_come_back(
    database: PostgresDatabase, store: RunStore, history: RunHistory
) -> None:
    store.write(changes_of("r", 0))
    with closing(store_in(database)) as other:
        other.write(changes_of("r", 0))
        assert store.delete("r") == "done"
        assert other.write(changes_of("r", 0, items=2)).refused == {"deleted": 2}
        assert history.runs() == []
        assert other.write(changes_of("r", 0, items=4)).refused == {}
    assert stored_items(history) == 4


def test_the_step_that_was_named_last_at_any_server_is_kept(
    store: RunStore, history: RunHistory
) -> None:
    for step, named_at, kept in (
        (6, 40.0, 6),
        (5, 39.0, 6),
        (7, 41.0, 7),
        (8, 90.0, 8),
        (9, 49, 9),
    ):
        changes = changes_of("r", step)
        changes.name_step("r", step, named_at)
        store.write(changes)
        origin = history.step_origin("r")
        assert origin is not None
        assert origin.last_step == kept


def test_a_user_without_rights_is_given_the_statement_that_its_owner_runs(
    postgres_server: PostgresServer, postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    name = postgres_url.rpartition("/")[2]
    postgres_server.execute("DROP ROLE IF EXISTS guest")
    postgres_server.execute("CREATE ROLE guest LOGIN")
    database = PostgresDatabase(postgres_server.url(name, "guest"))
    store = RunStore(database, Retention(), Clock())
    statement = 'CREATE SCHEMA assay AUTHORIZATION "guest";'
    assert statement in caplog.text
    postgres_server.execute(statement, postgres_url)
    database._gate._error = None  # a second has passed
    store.write(changes_of("r", 0))
    assert store.owners() == {"r": ""}
    store.close()


def test_tables_that_were_dropped_are_made_again(
    store: RunStore, history: RunHistory, *, postgres_server: PostgresServer, postgres_url: str
) -> None:
    store.write(changes_of("r", 1))
    postgres_server.execute("DROP SCHEMA assay CASCADE", postgres_url)
    with pytest.raises(StoreUnavailableError):
        store.write(changes_of("r", 2))
    assert not store.is_in_place
    store.reopen()
    store.write(changes_of("s", 2))
    assert [point.step for point in history.series("s", CODE)] == [2]


def test_a_commit_that_the_server_knows_nothing_of_is_written_again(store: RunStore) -> None:
    store.write(changes_of("r", 1))
    assert store.was_committed() is not None
    connection = store._connection
    assert isinstance(connection, PostgresConnection)
    connection._transaction = str(2**40)  # as after a takeover by a server that lags behind
    assert store.was_committed() is None
    store.write(changes_of("r", 2))


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_names_are_kept_in_any_encoding_or_the_database_is_refused(
    postgres_server: PostgresServer, encoding: str
) -> None:
    name = f"encoded_{encoding.lower()}"
    options = f"ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
    postgres_server.execute(f"DROP DATABASE IF EXISTS {name}")
    postgres_server.execute(f"CREATE DATABASE {name} {options}")
    database = PostgresDatabase(postgres_server.url(name))
    with closing(store_in(database)) as store:
        if encoding == "LATIN1":
            with pytest.raises(TablesError, match="encoding LATIN1"):
                store.reopen()
            return
        store.write(changes_of("läuf 😀", 1))
        store.edit("läuf 😀", note="größe")
    (run,) = RunHistory(database).runs()
    assert (run.run, run.note) == ("läuf 😀", "größe")
    database.close()


def test_tables_of_another_version_are_refused(
    store: RunStore, *, postgres_server: PostgresServer, postgres_url: str
) -> None:
    postgres_server.execute("UPDATE assay.version SET version = 99", postgres_url)
    with pytest.raises(StoreError, match="version 99"):
        store.reopen()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:secret@[/d",
        "postgresql://u@h/d?secret=1",
        "postgresql://u:p@secret@h/d",
        "postgresql://u:p/secret@h/d",
        "postgresql://u:12/secret@h:5432/d",
        "postgresql://u:p@q/secret@h/d",
    ],
)
def test_a_malformed_url_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ValueError, match="must be like postgresql://") as refused:
        PostgresDatabase(url)
    assert "secret" not in str(refused.value)


def test_the_name_of_a_database_has_no_password() -> None:
    database = PostgresDatabase("postgresql://u:hush@h.example/d?sslmode=require")
    assert str(database) == "the PostgreSQL database h.example/d"


def test_a_query_that_takes_too_long_ends(database: PostgresDatabase) -> None:
    with database.reading(lambda: False) as reader:
        reader.execute("SET LOCAL statement_timeout = 20")
        with pytest.raises(ReadTimeoutError):
            reader.execute("SELECT pg_sleep(30)")
    with database.reading(lambda: False) as reader:
        assert reader.execute("SELECT 1").fetchone() == (1,)


def test_a_row_that_cannot_be_read_is_set_aside(
    store: RunStore, history: RunHistory, *, postgres_server: PostgresServer, postgres_url: str
) -> None:
    changes = changes_of("r", 1)
    changes.gold["r", "tests", 1] = GoldPoint(1)
    store.write(changes)
    postgres_server.execute("UPDATE assay.windows SET summary = '\\x0011'", postgres_url)
    postgres_server.execute("UPDATE assay.gold SET point = 'x'", postgres_url)
    assert history.series("r", CODE) == []
    assert store.set_aside_damaged("r") == 2
    assert RunHistory(history._database).damaged_rows("r") == 2


def test_texts_with_null_characters_are_kept_without_them(
    store: RunStore, history: RunHistory
) -> None:
    store.write(changes_of("r", 1, stream=Stream("m@1", "a\0b")))
    assert store.edit("r", note="x\0y") == "done"
    assert (history.runs()[0].note, history.streams("r")) == ("x\ufffdy", [("m@1", "a\ufffdb")])


def test_bytes_are_bounded(database: PostgresDatabase, history: RunHistory) -> None:
    with closing(store_in(database, bytes=20_000)) as store:
        windows = {Window("r", *CODE, step): summarise(items(9)) for step in range(200)}
        with patch("assay_monitors.store.COMMITS_PER_MERGE", 1):
            store.write(Changes(windows))
        assert store._connection.bytes_in_use() <= 18_000
    assert stored_items(history) == 1_800
