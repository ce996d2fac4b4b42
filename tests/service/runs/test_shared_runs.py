"""A server whose runs are in a PostgreSQL database: settings, errors, and what others write."""

import asyncio
import signal
import sys
from collections.abc import Iterator
from contextlib import closing

import pytest
from pydantic import SecretStr
from support.doubles import new_metrics
from support.postgres import running as running_postgres
from support.scoring_requests import post
from support.servers import Served

from assay.app import create_app
from assay.errors import SettingsError
from assay.runs.monitor import RunMonitor
from assay.runs.steps import StepFiling, next_arrival
from assay.settings import Settings
from assay_monitors.admission import Writer
from assay_monitors.changes import Changes
from assay_monitors.database import StoreUnavailableError
from assay_monitors.history import RunHistory
from assay_monitors.observations import Observation, Window
from assay_monitors.postgres import PostgresDatabase
from assay_monitors.retention import Retention
from assay_monitors.store import RunStore
from assay_monitors.summaries import summarise

MINUTE = 60.0


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def database(postgres_url: str) -> Iterator[PostgresDatabase]:
    database = PostgresDatabase(postgres_url)
    yield database
    database.close()


def name_step(database: PostgresDatabase, step: int, clock: Clock, owner: str = "") -> None:
    """Write an item of a step as another server does."""
    changes = Changes({Window("r", "m@1", "train", step): summarise([Observation(0.5)])})
    changes.name_step("r", step, clock.now)
    changes.owners["r"] = owner
    with closing(RunStore(database, Retention(), clock)) as store:
        store.write(changes)


def test_items_without_a_step_are_filed_under_the_step_that_another_server_named(
    database: PostgresDatabase,
) -> None:
    clock = Clock()
    filing, history = StepFiling(clock, is_shared=True), RunHistory(database)
    filing.name("r", "train", arrival=next_arrival(), step=5)
    assert filing.step_of("r", "train", history) == 5
    clock.now += 2.0
    name_step(database, 6, clock)
    assert filing.recent("r", "train") is None
    assert filing.step_of("r", "train", history) == 6
    assert filing.recent("r", "train") == 6
    filing.name("r", "train", arrival=next_arrival(), step=4)
    assert filing.step_of("r", "train", history) == 4


def test_a_database_that_cannot_be_read_leaves_the_minutes_of_the_run(
    database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    changes = Changes({Window("r", "m@1", "train", 0): summarise([Observation(0.5)])})
    with closing(RunStore(database, Retention(), clock)) as store:
        store.write(changes)
    filing, history = StepFiling(clock, is_shared=True), RunHistory(database)
    clock.now += MINUTE
    assert filing.step_of("r", "train", history) == 1

    def lost(*_: object) -> None:
        raise StoreUnavailableError

    monkeypatch.setattr(RunHistory, "step_origin", lost)
    clock.now += MINUTE
    assert filing.step_of("r", "train", history) == 2


async def test_a_run_that_another_server_made_or_deleted_is_known_within_a_second(
    database: PostgresDatabase,
) -> None:
    clock = Clock()
    monitor = RunMonitor(database, new_metrics(), clock)
    await monitor.open()
    alice, bob = Writer("alice", False), Writer("bob", False)
    assert monitor._memory is not None
    name_step(database, 1, clock, owner="alice")
    await monitor._memory.refresh(monitor._open_reader())
    assert monitor._owners.is_known_as_foreign("r", bob)
    assert not monitor._owners.is_known_as_foreign("r", alice)
    with closing(RunStore(database, Retention(), clock)) as other:
        other.delete("r")
    await monitor._memory.refresh(monitor._open_reader())
    assert not monitor._owners.is_known_as_foreign("r", bob)
    assert monitor._new_runs.seen() == {}
    await monitor.close()


@pytest.mark.slow
async def test_a_database_that_is_down_costs_no_score_and_reading_is_answered_with_503(
    scripted_settings: Settings, served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    with running_postgres() as server:
        url = server.new_database().replace("assay@", "assay:hush@")
        server.stop(signal.SIGINT)
        settings = scripted_settings.model_copy(update={"runs": SecretStr(url)})
        async with served(settings) as client:
            reply = await post(client, ["a"], run={"id": "r", "step": 1})
            assert reply["results"][0]["score"] == 1.0
            for path in ("/v1/runs", "/v1/runs/r/health"):
                refused = await client.get(path)
                assert (refused.status_code, refused.json()["code"]) == (503, "runs_unavailable")
                assert refused.headers["retry-after"] == "1"
            assert (await client.delete("/v1/runs/r")).status_code == 503
            assert (await client.get("/readyz")).status_code == 200
            await asyncio.to_thread(server.start)
            for _ in range(600):
                series = await client.get("/v1/runs/r/series")
                if series.status_code == 200 and series.json()["streams"]:
                    break
                await asyncio.sleep(0.05)
            assert series.json()["streams"], series.text
            assert series.json()["streams"][0]["steps"][0]["items"] == 1
        assert "hush" not in caplog.text


@pytest.mark.parametrize("url", ["postgresql://u:hush@[/d", "postgres://u@h/d?hush=1"])
def test_a_malformed_url_ends_the_start_without_repeating_it(
    scripted_settings: Settings, url: str
) -> None:
    with pytest.raises(SettingsError, match="ASSAY_RUNS: must be like") as refused:
        create_app(scripted_settings.model_copy(update={"runs": SecretStr(url)}))
    assert "hush" not in str(refused.value)


def test_a_missing_driver_ends_the_start_with_the_command_that_installs_it(
    scripted_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "assay_monitors.postgres", None)
    settings = scripted_settings.model_copy(update={"runs": SecretStr("postgresql://h/d")})
    with pytest.raises(SettingsError, match=r"pip install '\.\[postgres\]'"):
        create_app(settings)
