"""What a request that names its run leaves behind, and what it never costs."""

import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest
from support.doubles import value
from support.item_files import score
from support.scoring_requests import post
from support.servers import Served, serving

import assay.runs.monitor
from assay.api.components import components_of
from assay.app import create_app
from assay.runs.monitor import Written, observation
from assay.settings import Settings
from assay.types import ItemFailure, ItemResult
from assay_monitors.history import RunHistory, Stream
from assay_monitors.store import Changes, RunStore
from assay_monitors.summaries import Summary

RUN = {"id": "team/exp-17", "step": 3, "split": "eval"}


@pytest.fixture
def kept_settings(scripted_settings: Settings, tmp_path: Path) -> Settings:
    return scripted_settings.model_copy(update={"runs": tmp_path / "state" / "runs.db"})


def kept(settings: Settings, run: str, split: str = "train", step: int = 0) -> Summary:
    assert isinstance(settings.runs, Path)
    series = RunHistory(settings.runs).series(run, Stream("scripted@1", split))
    (summary,) = [point.summary for point in series if point.step == step]
    return summary


async def test_results_are_added_up_by_step_and_split(
    served: Served, kept_settings: Settings
) -> None:
    async with served(kept_settings) as client:
        await post(client, ["a", "bbb", "poison"], run=RUN)
        await post(client, ["a"], run=RUN)
        await post(client, ["cc"], run={"id": "team/exp-17"})
    summary = kept(kept_settings, "team/exp-17", "eval", 3)
    assert (summary.items, summary.nulls, summary.score.mean) == (4, 1, 5 / 3)
    assert summary.channels["reward"].count == 3
    assert summary.sources == {"computed": 2, "cache": 1}
    assert summary.scripts == {"latin": 4}
    assert summary.characters.quantile(1.0) == pytest.approx(6, rel=0.05)
    assert kept(kept_settings, "team/exp-17").items == 1


async def test_what_stands_in_for_a_score_is_no_score(
    served: Served, kept_settings: Settings
) -> None:
    async with served(kept_settings) as client:
        stand_in = {"on_error": {"substitute": 9.0}}
        reply = await post(client, ["nan"], run=RUN, options=stand_in)
        assert reply["results"][0]["score"] == 9.0
    summary = kept(kept_settings, "team/exp-17", "eval", 3)
    assert (summary.nulls, summary.score.count) == (1, 0)
    assert summary.flags == {"error:non_finite_score": 1, "substituted": 1}


async def test_every_native_route_records(served: Served, kept_settings: Settings) -> None:
    async with served(kept_settings) as client:
        items = [{"text": "a", "group": "p"}, {"text": "bb", "group": "p"}]
        one = await client.post("/v1/models/scripted/score", json={"items": items, "run": RUN})
        body = {"model": "scripted", "candidates": ["a", "bb"], "run": {"id": "ranked"}}
        other = await client.post("/v1/best-of-n", json=body)
        assert (one.status_code, other.status_code) == (200, 200)
    assert kept(kept_settings, "team/exp-17", "eval", 3).groups.degenerate(0.0) == (0, 1)
    assert kept(kept_settings, "ranked").items == 2


async def test_a_request_without_a_run_leaves_nothing(
    served: Served, kept_settings: Settings
) -> None:
    async with served(kept_settings) as client:
        await post(client, ["a"])
        await client.post("/v1/score", json={"model": "nope", "items": [{}], "run": RUN})
    assert isinstance(kept_settings.runs, Path)
    assert RunHistory(kept_settings.runs).runs() == []


async def test_two_lives_of_a_server_add_up(served: Served, kept_settings: Settings) -> None:
    for _ in range(2):
        async with served(kept_settings) as client:
            await post(client, ["a", "bb"], run=RUN)
    assert kept(kept_settings, "team/exp-17", "eval", 3).items == 4


async def test_a_writer_that_hangs_holds_up_no_score(
    served: Served, kept_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, go, write = threading.Event(), threading.Event(), RunStore.write

    def stuck(store: RunStore, changes: Changes) -> None:
        writing.set()
        assert go.wait(30)
        write(store, changes)

    monkeypatch.setattr(RunStore, "write", stuck)
    async with served(kept_settings) as client:
        await post(client, ["a"], run=RUN)
        assert writing.wait(30)
        reply = await post(client, ["bb"], run=RUN)
        assert reply["results"][0]["score"] == 2.0
        go.set()
    assert kept(kept_settings, "team/exp-17", "eval", 3).items == 2


async def test_a_disk_that_fails_is_counted_and_costs_no_score(
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


async def test_what_does_not_fit_is_dropped_and_counted(
    kept_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assay.runs.monitor, "WAITING_ITEMS", 2)
    monkeypatch.setattr(assay.runs.monitor, "WAITING_CHARACTERS", 10)
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
    assert kept(kept_settings, "team/exp-17", "eval", 3).items == 1


@pytest.mark.parametrize("spoiled", ["file", "folder"])
async def test_where_the_file_cannot_be_used_runs_live_as_long_as_the_process(
    scripted_settings: Settings, tmp_path: Path, spoiled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, write = threading.Event(), RunStore.write

    def telling(store: RunStore, changes: Changes) -> None:
        write(store, changes)
        written.set()

    monkeypatch.setattr(RunStore, "write", telling)
    taken = tmp_path / "taken"
    taken.write_text("not a database, and no folder")
    path = taken if spoiled == "file" else taken / "runs.db"
    app = create_app(scripted_settings.model_copy(update={"runs": path}))
    async with serving(app) as client:
        assert (await post(client, ["a"], run=RUN))["results"][0]["score"] == 1.0
        assert value(components_of(app).metrics, "assay_runs_durable") == 0
        assert written.wait(30)
        assert await components_of(app).runs.read(lambda history: len(history.runs())) == 1
    assert taken.read_text() == "not a database, and no folder"


async def test_where_no_file_can_be_used_it_scores_and_keeps_nothing(
    scripted_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    app = create_app(scripted_settings)
    async with serving(app) as client:
        assert (await post(client, ["a"], run=RUN))["results"][0]["score"] == 1.0
        assert (await client.get("/v1/runs")).json()["code"] == "runs_off"


async def test_a_file_that_can_be_used_is_said_to_last(kept_settings: Settings) -> None:
    app = create_app(kept_settings)
    async with serving(app):
        assert value(components_of(app).metrics, "assay_runs_durable") == 1


async def test_switched_off_it_scores_and_keeps_nothing(
    served: Served, scripted_settings: Settings
) -> None:
    async with served(scripted_settings.model_copy(update={"runs": "off"})) as client:
        assert (await post(client, ["a"], run=RUN))["results"][0]["score"] == 1.0


def result(**fields: Any) -> ItemResult:
    usual: dict[str, Any] = {
        "index": 0, "id": None, "group": None, "status": "ok", "score": 0.5, "raw": 0.5,
        "channels": {}, "flags": [], "tokens": 7, "source": "computed", "details": {},
        "error": None,
    }  # fmt: skip
    return ItemResult(**{**usual, **fields})


@pytest.mark.parametrize(
    ("details", "labels"),
    [
        ({"label": "neutral", "probabilities": {}}, {"neutral": 1}),
        ({"claims": [{"label": "neutral"}, {"label": "entailment"}, {"label": "neutral"}]},
         {"neutral": 2, "entailment": 1}),
        ({"extraction": "ok", "language": "python"}, {}),
    ],
)  # fmt: skip
def test_verdicts_are_labels_and_codes_are_not(
    details: dict[str, Any], labels: dict[str, int]
) -> None:
    assert observation(Written("text"), result(details=details)).labels == labels


def test_nothing_to_score_is_invalid_however_it_is_told() -> None:
    failed = {"status": "error", "score": None, "source": None}
    assert observation(Written("x"), result(flags=["invalid_code"])).invalid
    nothing = ItemFailure("no_claims", "")
    assert observation(Written("x"), result(error=nothing, **failed)).invalid
    too_long = ItemFailure("input_too_long", "")
    assert not observation(Written("x"), result(error=too_long, **failed)).invalid


def test_an_items_tokens_hold_the_prompt_and_are_not_the_responses() -> None:
    seen = observation(Written("ответ"), result())
    assert (seen.tokens, seen.characters, seen.script) == (None, 5, "cyrillic")
    assert observation(Written(None), result()).characters is None


@pytest.mark.parametrize(
    ("fields", "response"),
    [
        ({"prompt": "p", "response": "r"}, "r"),
        ({"premise": "p", "hypothesis": "h"}, "h"),
        ({"messages": [{"role": "user", "content": "q"}, {"role": "a", "content": "r"}]}, "r"),
        ({"text": "t", "text_pair": "u"}, None),
        ({"evidence": "e", "claims": ["c"]}, None),
    ],
)
def test_the_response_is_what_the_policy_wrote(
    fields: dict[str, Any], response: str | None
) -> None:
    assert assay.runs.monitor._response(fields, "hypothesis") == response


async def test_what_only_the_trainer_knows_of_a_response_comes_with_its_item(
    served: Served, kept_settings: Settings
) -> None:
    async with served(kept_settings) as client:
        known = [{"calls": 2, "response_tokens": 40}, {"calls": 0}, {"response_tokens": 10}, {}]
        items = [{"text": "a", **one} for one in known]
        body = {"model": "scripted", "items": items, "run": RUN}
        answer = (await client.post("/v1/score", json=body)).json()
        assert [one["score"] for one in answer["results"]] == [1.0] * 4
        computed = answer["usage"]["computed"] + answer["usage"]["shared"]
        assert (answer["usage"]["computed"], computed) == (1, 4)
    summary = kept(kept_settings, "team/exp-17", "eval", 3)
    assert summary.calls == {"2": 1, "0": 1}
    assert summary.tokens.quantile(0.0) == pytest.approx(10, rel=0.05)
    assert summary.tokens.quantile(1.0) == pytest.approx(40, rel=0.05)


@pytest.mark.parametrize("wrong", [{"calls": -1}, {"calls": "2"}, {"response_tokens": 1.5}])
async def test_what_is_no_count_is_refused_and_named(
    served: Served, kept_settings: Settings, wrong: dict[str, Any]
) -> None:
    async with served(kept_settings) as client:
        body = {"model": "scripted", "items": [{"text": "a", **wrong}], "run": RUN}
        answer = await client.post("/v1/score", json=body)
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["field"] == f"items.0.{next(iter(wrong))}"


async def test_one_habit_of_calling_that_is_new_is_told(
    served: Served, kept_settings: Settings
) -> None:
    async with served(kept_settings) as client:
        for step in range(8):
            calls = [number % 4 for number in range(128)] if step < 6 else [3] * 128
            items = [{"text": "a", "calls": one, "response_tokens": 9} for one in calls]
            run = {"id": "tools", "step": step}
            body = {"model": "scripted", "items": items, "run": run}
            assert (await client.post("/v1/score", json=body)).status_code == 200
    async with served(kept_settings) as client:
        (stream,) = (await client.get("/v1/runs/tools/health")).json()["streams"]
        (lock,) = [one for one in stream["rules"] if one["rule"] == "behaviour_lock"]
        (steps,) = (await client.get("/v1/runs/tools/series?since=7")).json()["streams"]
    assert (lock["severity"], lock["since_step"]) == ("critical", 6)
    assert lock["evidence"] == {"calls": 3.0, "mean": 3.0, "mean_before": 1.5}
    assert steps["steps"][0]["calls"] == {"3": 128}
    assert steps["steps"][0]["token_quantiles"] == pytest.approx([9.0] * 3, rel=0.021)


def test_a_file_of_items_is_scored_for_no_run(tmp_path: Path) -> None:
    source = tmp_path / "items.jsonl"
    source.write_text('{"prompt": "one two", "response": "two"}\n')
    runs = tmp_path / "runs.db"
    assert score(source, tmp_path / "scores.jsonl", ASSAY_RUNS=str(runs)).exit_code == 0
    assert not runs.exists()
