"""RunMonitor: the records of requests that name their run, and their independence of scoring."""

import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from support.doubles import new_metrics, value
from support.item_files import score
from support.scoring_requests import item_result, post
from support.servers import Served, serving

import assay.runs.monitor
from assay.api.components import components_of
from assay.app import create_app
from assay.runs.monitor import RunMonitor
from assay.runs.steps import RunStep
from assay.settings import Settings
from assay_monitors.changes import Changes, Outcome
from assay_monitors.history import RunHistory, Stream
from assay_monitors.store import RunStore
from assay_monitors.summaries import Summary

RUN = {"id": "team/exp-17", "step": 3, "split": "eval"}


@pytest.fixture
def kept_settings(scripted_settings: Settings, tmp_path: Path) -> Settings:
    return scripted_settings.model_copy(update={"runs": tmp_path / "state" / "runs.db"})


def stored_summary(settings: Settings, run: str, split: str = "train", step: int = 0) -> Summary:
    assert isinstance(settings.runs, Path)
    series = RunHistory(settings.runs).series(run, Stream("scripted@1", split))
    (summary,) = [point.summary for point in series if point.step == step]
    return summary


async def test_results_are_summed_by_step_and_split(
    served: Served, kept_settings: Settings
) -> None:
    async with served(kept_settings) as client:
        await post(client, ["a", "bbb", "poison"], run=RUN)
        await post(client, ["a"], run=RUN)
        await post(client, ["cc"], run={"id": "team/exp-17", "step": 0})
    summary = stored_summary(kept_settings, "team/exp-17", "eval", 3)
    assert (summary.items, summary.nulls, summary.score.mean) == (4, 1, 5 / 3)
    assert summary.channels["reward"].count == 3
    assert summary.sources == {"computed": 2, "cache": 1}
    assert summary.scripts == {"latin": 4}
    assert summary.characters.quantile(1.0) == pytest.approx(6, rel=0.05)
    assert stored_summary(kept_settings, "team/exp-17").items == 1


async def test_a_substitute_is_not_recorded_as_a_score(
    served: Served, kept_settings: Settings
) -> None:
    async with served(kept_settings) as client:
        fallback = {"on_error": {"substitute": 9.0}}
        reply = await post(client, ["nan"], run=RUN, options=fallback)
        assert reply["results"][0]["score"] == 9.0
    summary = stored_summary(kept_settings, "team/exp-17", "eval", 3)
    assert (summary.nulls, summary.score.count) == (1, 0)
    assert summary.flags == {"error:non_finite_score": 1, "substituted": 1}


async def test_every_native_route_records_runs(served: Served, kept_settings: Settings) -> None:
    async with served(kept_settings) as client:
        items = [{"text": "a", "group": "p"}, {"text": "bb", "group": "p"}]
        first = await client.post("/v1/models/scripted/score", json={"items": items, "run": RUN})
        body = {"model": "scripted", "candidates": ["a", "bb"], "run": {"id": "ranked"}}
        second = await client.post("/v1/best-of-n", json=body)
        assert (first.status_code, second.status_code) == (200, 200)
    groups = stored_summary(kept_settings, "team/exp-17", "eval", 3).groups
    assert groups.count_zero_variance(0.0) == (0, 1)
    assert stored_summary(kept_settings, "ranked").items == 2


async def test_a_run_is_known_as_soon_as_its_first_request_is_answered(
    served: Served, kept_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, write = threading.Event(), RunStore.write

    def held_write(store: RunStore, changes: Changes) -> Outcome:
        assert go.wait(30)
        return write(store, changes)

    monkeypatch.setattr(RunStore, "write", held_write)
    async with served(kept_settings) as client:
        await post(client, ["a"], run={"id": "team/new"})
        await client.post("/v1/runs/told/telemetry", json={"step": 1, "values": {"kl": 0.1}})
        for run in ("team/new", "told"):
            health = (await client.get(f"/v1/runs/{run}/health")).json()
            assert (health["run"], health["status"], health["streams"]) == (run, "waiting", [])
            for path in ("", "/series", "/chart", "/events"):
                assert (await client.get(f"/v1/runs/{run}{path}")).status_code == 200, path
        listed = (await client.get("/v1/runs")).json()["runs"]
        assert {run["run"] for run in listed} == {"team/new", "told"}
        assert (await client.get("/v1/runs/never/health")).status_code == 404
        go.set()
    assert stored_summary(kept_settings, "team/new").items == 1


async def test_items_without_a_step_are_filed_under_the_step_that_was_named_last(
    served: Served, kept_settings: Settings
) -> None:
    async with served(kept_settings) as client:
        await post(client, ["a"], run={"id": "r", "step": 7})
        await post(client, ["bb"], run={"id": "r"})
        await client.post("/v1/runs/r/telemetry", json={"step": 9, "values": {"kl": 0.1}})
    async with served(kept_settings) as client:
        await post(client, ["bb", "a"], run={"id": "r"})
    assert stored_summary(kept_settings, "r", step=7).items == 2
    assert stored_summary(kept_settings, "r", step=9).items == 2


async def test_items_without_a_step_are_filed_under_the_last_step_of_their_split(
    served: Served, kept_settings: Settings
) -> None:
    async with served(kept_settings) as client:
        await post(client, ["a"], run={"id": "r", "step": 100})
        await post(client, ["a"], run={"id": "r", "step": 0, "split": "eval"})
        await post(client, ["bb", "a"], run={"id": "r"})
        await post(client, ["bb", "a"], run={"id": "r", "split": "eval"})
    async with served(kept_settings) as client:
        await post(client, ["ccc"], run={"id": "r"})
    assert stored_summary(kept_settings, "r", step=100).items == 4
    assert stored_summary(kept_settings, "r", "eval", step=0).items == 3


async def test_results_of_an_earlier_request_move_the_last_step_not_back(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    monitor = RunMonitor(path, new_metrics(), time.monotonic)
    await monitor.open()
    first, second = RunStep("r", 1), RunStep("r", 2)
    for step in (second, first, RunStep("r"), RunStep("r", 0), RunStep("r")):
        monitor.observe(
            step, "scripted@1", candidate="text", items=[{"text": "a"}], results=[item_result()]
        )
    await monitor.close()
    series = RunHistory(path).series("r", Stream("scripted@1", "train"))
    assert [(point.step, point.summary.items) for point in series] == [(0, 2), (1, 1), (2, 2)]
    origin = RunHistory(path).step_origin("r")
    assert origin is not None
    assert origin.last_step == 0


async def test_items_of_a_run_that_names_no_step_are_filed_by_the_minute(
    tmp_path: Path,
) -> None:
    now = 1_000.0
    path = tmp_path / "runs.db"

    async def observe(times: int) -> None:
        monitor = RunMonitor(path, new_metrics(), time.monotonic, epoch_clock=lambda: now)
        await monitor.open()
        texts = [{"text": "a"}] * times
        monitor.observe(
            RunStep("r"),
            "scripted@1",
            candidate="text",
            items=texts,
            results=[item_result()] * times,
        )
        await monitor.close()

    for seconds, times in ((0.0, 1), (59.0, 2), (1.5, 4), (120.0, 8)):
        now += seconds
        await observe(times)
    series = RunHistory(path).series("r", Stream("scripted@1", "train"))
    assert [(point.step, point.summary.items) for point in series] == [(0, 3), (1, 4), (3, 8)]


async def test_a_request_without_a_run_is_not_recorded(
    served: Served, kept_settings: Settings
) -> None:
    async with served(kept_settings) as client:
        await post(client, ["a"])
        await client.post("/v1/score", json={"model": "nope", "items": [{}], "run": RUN})
    assert isinstance(kept_settings.runs, Path)
    assert RunHistory(kept_settings.runs).runs() == []


async def test_a_restarted_server_adds_to_the_same_run(
    served: Served, kept_settings: Settings
) -> None:
    for _ in range(2):
        async with served(kept_settings) as client:
            await post(client, ["a", "bb"], run=RUN)
    assert stored_summary(kept_settings, "team/exp-17", "eval", 3).items == 4


async def test_a_hanging_writer_delays_no_score(
    served: Served, kept_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, go, write = threading.Event(), threading.Event(), RunStore.write

    def stuck(store: RunStore, changes: Changes) -> Outcome:
        writing.set()
        assert go.wait(30)
        return write(store, changes)

    monkeypatch.setattr(RunStore, "write", stuck)
    async with served(kept_settings) as client:
        await post(client, ["a"], run=RUN)
        assert writing.wait(30)
        reply = await post(client, ["bb"], run=RUN)
        assert reply["results"][0]["score"] == 2.0
        go.set()
    assert stored_summary(kept_settings, "team/exp-17", "eval", 3).items == 2


async def test_a_failing_disk_is_counted_and_costs_no_score(
    kept_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = threading.Semaphore(0)

    def full(*_: object) -> None:
        tried.release()
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(RunStore, "write", full)
    app = create_app(kept_settings)
    async with serving(app) as client:
        assert (await post(client, ["a"], run=RUN))["results"][0]["score"] == 1.0
        assert all(tried.acquire(timeout=30) for _ in range(2))
        await client.get("/metrics")
        assert value(components_of(app).metrics, "assay_run_commit_failures_total") >= 1
    components_of(app).runs.publish()
    assert value(components_of(app).metrics, "assay_run_observations_total", outcome="dropped") == 1


async def test_results_beyond_the_bound_are_dropped_and_counted(
    kept_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assay.runs.monitor, "MAX_WAITING_ITEMS", 2)
    monkeypatch.setattr(assay.runs.monitor, "MAX_WAITING_CHARACTERS", 10)
    app = create_app(kept_settings)
    async with serving(app) as client:
        assert len((await post(client, ["a", "b", "c"], run=RUN))["results"]) == 3
        await post(client, ["x" * 11], run=RUN)
        await post(client, ["ab"], run=RUN)
    components_of(app).runs.publish()
    counts = {
        outcome: value(components_of(app).metrics, "assay_run_observations_total", outcome=outcome)
        for outcome in ("written", "dropped")
    }
    assert counts == {"written": 1, "dropped": 4}
    assert stored_summary(kept_settings, "team/exp-17", "eval", 3).items == 1


@pytest.mark.parametrize("broken", ["file", "folder"])
async def test_an_unusable_file_is_replaced_by_a_temporary_one(
    scripted_settings: Settings,
    tmp_path: Path,
    broken: str,
    *,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    written, write = threading.Event(), RunStore.write

    def signalling_write(store: RunStore, changes: Changes) -> Outcome:
        outcome = write(store, changes)
        written.set()
        return outcome

    monkeypatch.setattr(RunStore, "write", signalling_write)
    taken = tmp_path / "taken"
    taken.write_text("not a database, and no folder")
    path = taken if broken == "file" else taken / "runs.db"
    app = create_app(scripted_settings.model_copy(update={"runs": path}))
    async with serving(app) as client:
        assert (await post(client, ["a"], run=RUN))["results"][0]["score"] == 1.0
        assert value(components_of(app).metrics, "assay_runs_durable") == 0
        assert written.wait(30)
        assert await components_of(app).runs.read(lambda history: len(history.runs())) == 1
    assert taken.read_text() == "not a database, and no folder"
    assert f"runs cannot be kept in {path}: " in caplog.text
    assert "runs are kept in the temporary file " in caplog.text
    assert "set ASSAY_RUNS to a file that can be written" in caplog.text


async def test_without_any_usable_file_scores_are_served_and_runs_are_off(
    scripted_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    app = create_app(scripted_settings)
    async with serving(app) as client:
        assert (await post(client, ["a"], run=RUN))["results"][0]["score"] == 1.0
        assert (await client.get("/v1/runs")).json()["code"] == "runs_off"


async def test_a_usable_file_is_reported_as_durable(kept_settings: Settings) -> None:
    app = create_app(kept_settings)
    async with serving(app):
        assert value(components_of(app).metrics, "assay_runs_durable") == 1


async def test_with_runs_off_scores_are_served(served: Served, scripted_settings: Settings) -> None:
    async with served(scripted_settings.model_copy(update={"runs": "off"})) as client:
        assert (await post(client, ["a"], run=RUN))["results"][0]["score"] == 1.0


async def test_calls_and_response_tokens_in_an_item_are_recorded_and_do_not_affect_its_score(
    served: Served, kept_settings: Settings
) -> None:
    async with served(kept_settings) as client:
        reported = [{"calls": 2, "response_tokens": 40}, {"calls": 0}, {"response_tokens": 10}, {}]
        items = [{"text": "a", **fields} for fields in reported]
        body = {"model": "scripted", "items": items, "run": RUN}
        answer = (await client.post("/v1/score", json=body)).json()
        assert [entry["score"] for entry in answer["results"]] == [1.0] * 4
        computed = answer["usage"]["computed"] + answer["usage"]["shared"]
        assert (answer["usage"]["computed"], computed) == (1, 4)
    summary = stored_summary(kept_settings, "team/exp-17", "eval", 3)
    assert summary.calls == {"2": 1, "0": 1}
    assert summary.tokens.quantile(0.0) == pytest.approx(10, rel=0.05)
    assert summary.tokens.quantile(1.0) == pytest.approx(40, rel=0.05)


@pytest.mark.parametrize("wrong", [{"calls": -1}, {"calls": "2"}, {"response_tokens": 1.5}])
async def test_a_malformed_count_is_rejected_with_its_field(
    served: Served, kept_settings: Settings, wrong: dict[str, Any]
) -> None:
    async with served(kept_settings) as client:
        body = {"model": "scripted", "items": [{"text": "a", **wrong}], "run": RUN}
        answer = await client.post("/v1/score", json=body)
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["field"] == f"items.0.{next(iter(wrong))}"


async def test_a_new_constant_number_of_calls_fires_the_behaviour_lock(
    served: Served, kept_settings: Settings
) -> None:
    async with served(kept_settings) as client:
        for step in range(8):
            calls = [number % 4 for number in range(128)] if step < 6 else [3] * 128
            items = [{"text": "a", "calls": count, "response_tokens": 9} for count in calls]
            run = {"id": "tools", "step": step}
            body = {"model": "scripted", "items": items, "run": run}
            assert (await client.post("/v1/score", json=body)).status_code == 200
    async with served(kept_settings) as client:
        (stream,) = (await client.get("/v1/runs/tools/health")).json()["streams"]
        (lock,) = [rule for rule in stream["rules"] if rule["rule"] == "behaviour_lock"]
        (steps,) = (await client.get("/v1/runs/tools/series?since=7")).json()["streams"]
    assert (lock["severity"], lock["since_step"]) == ("critical", 6)
    assert lock["evidence"] == {"calls": 3.0, "mean": 3.0, "mean_before": 1.5}
    assert steps["steps"][0]["calls"] == {"3": 128}
    assert steps["steps"][0]["token_quantiles"] == pytest.approx([9.0] * 3, rel=0.021)


def test_scoring_a_file_records_no_run(tmp_path: Path) -> None:
    source = tmp_path / "items.jsonl"
    source.write_text('{"prompt": "one two", "response": "two"}\n')
    runs = tmp_path / "runs.db"
    assert score(source, tmp_path / "scores.jsonl", ASSAY_RUNS=str(runs)).exit_code == 0
    assert not runs.exists()
