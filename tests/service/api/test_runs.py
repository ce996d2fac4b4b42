"""The routes of run health over HTTP, each time after a restart on the same file."""

import asyncio
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from support.doubles import value
from support.scoring_requests import post
from support.servers import Served, serving

from assay.api.components import components_of
from assay.app import create_app
from assay.settings import Settings
from assay_monitors.health import DEFAULT_RULES
from assay_monitors.history import Run, RunHistory

TELEMETRY = {"step": 4, "values": {"kl": 0.5, "entropy_nats": 1.25}}
PAIRS = [("p", 2.0, 1.0), ("p", 1.0, 0.0), ("q", 0.5, 0.0), ("q", 0.75, 1.0)]
GOLD_ITEMS = [{"prompt": name, "proxy": proxy, "gold": gold} for name, proxy, gold in PAIRS]


@pytest.fixture
def kept_settings(scripted_settings: Settings, tmp_path: Path) -> Settings:
    return scripted_settings.model_copy(update={"runs": tmp_path / "runs.db"})


@pytest.fixture
def schemas() -> Mapping[str, Any]:
    return create_app(Settings(models=("reference",))).openapi()


async def get(served: Served, settings: Settings, path: str) -> Any:
    async with served(settings) as client:
        answer = await client.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()


async def post_all(served: Served, settings: Settings, path: str, *bodies: object) -> list[Any]:
    async with served(settings) as client:
        answers = [await client.post(path, json=body) for body in bodies]
        assert [answer.status_code for answer in answers] == [200] * len(bodies)
        return [answer.json() for answer in answers]


async def score_some(served: Served, settings: Settings) -> None:
    async with served(settings) as client:
        for step in range(3):
            await post(client, ["a", "bb"] * 32, run={"id": "team/exp", "step": step})
        texts = ["nan"] * 128 + ["ccc"] * 128
        await post(client, texts, run={"id": "team/exp", "step": 3, "split": "eval"})


async def test_runs_are_listed_after_a_restart(served: Served, kept_settings: Settings) -> None:
    await score_some(served, kept_settings)
    await post_all(served, kept_settings, "/v1/runs/other/telemetry", TELEMETRY)
    runs = (await get(served, kept_settings, "/v1/runs"))["runs"]
    assert [run["run"] for run in runs] == ["other", "team/exp"]
    report = await get(served, kept_settings, "/v1/runs/team/exp")
    assert report["first_seen"] <= report["last_seen"]
    streams = [(stream["model"], stream["split"]) for stream in report["streams"]]
    assert streams == [("scripted@1", "eval"), ("scripted@1", "train")]


async def test_health_has_each_rule_with_its_value_and_thresholds(
    served: Served, kept_settings: Settings
) -> None:
    await score_some(served, kept_settings)
    health = await get(served, kept_settings, "/v1/runs/team/exp/health")
    failing, healthy = health["streams"]
    assert [rule["rule"] for rule in healthy["rules"]] == [rule.id for rule in DEFAULT_RULES]
    assert (health["status"], failing["status"], healthy["status"]) == (
        "critical",
        "critical",
        "waiting",
    )
    nulls = next(rule for rule in healthy["rules"] if rule["rule"] == "null_share")
    assert (nulls["state"], nulls["severity"]) == ("waiting", None)
    assert nulls["progress"] == {"seen": 192, "needed": 200, "unit": "items"}
    (state,) = [rule for rule in failing["rules"] if rule["severity"]]
    assert (state["rule"], state["severity"], state["since_step"]) == ("null_share", "critical", 3)
    assert (state["value"], state["threshold"]) == (0.5, 0.2)
    assert state["thresholds"]["warn"] == 0.02
    assert state["limits"] == "the reasons for a missing score: see the items' error codes"
    assert (healthy["step"], healthy["channels"]["score"]["mean"]) == (2, 1.5)
    assert failing["channels"]["score"]["null_share"] == 0.5


async def test_the_series_has_the_values_of_each_step(
    served: Served, kept_settings: Settings
) -> None:
    await score_some(served, kept_settings)
    await post_all(served, kept_settings, "/v1/runs/team/exp/telemetry", TELEMETRY)
    path = "/v1/runs/team/exp/series?split=train&since=1"
    (stream,) = (await get(served, kept_settings, path))["streams"]
    assert [point["step"] for point in stream["steps"]] == [1, 2, 4]
    first, _, last = stream["steps"]
    assert first["score"] == {"count": 64, "mean": 1.5, "std": 0.5, "low": 1.0, "high": 2.0}
    assert first["score_quantiles"] == pytest.approx([1.0, 1.0, 2.0], rel=0.021)
    assert last["telemetry"] == TELEMETRY["values"]
    assert (last["items"], last["score"]["mean"]) == (0, None)
    other = await get(served, kept_settings, "/v1/runs/team/exp/series?model=code@1")
    assert other["streams"] == []


async def test_a_run_with_telemetry_only_is_evaluated(
    served: Served, kept_settings: Settings
) -> None:
    steps = [{"step": step, "values": {"kl": 0.02}} for step in range(6)]
    jump = {"step": 6, "values": {"kl": 3.0}}
    await post_all(served, kept_settings, "/v1/runs/r/telemetry", *steps, jump)
    health = await get(served, kept_settings, "/v1/runs/r/health")
    (stream,) = health["streams"]
    assert (stream["model"], stream["split"], stream["step"]) == (None, None, 6)
    (firing,) = [rule for rule in stream["rules"] if rule["severity"]]
    assert (firing["rule"], firing["value"], health["status"]) == ("kl_jump", 3.0, "warn")


async def test_gold_is_measured_and_stored_and_gives_advice(
    served: Served, kept_settings: Settings
) -> None:
    good = {"step": 0, "source": "tests", "items": GOLD_ITEMS}
    path = "/v1/runs/r/gold"
    (point,) = await post_all(served, kept_settings, path, good)
    assert point["accuracy"]["value"] == 1.0
    assert (point["gold"]["value"], point["gold"]["n"]) == (0.5, 4)
    norms = [{"step": n, "source": "tests", "gradient_norm": 1.0} for n in range(1, 7)]
    steep = {"step": 7, "source": "tests", "gradient_norm": 100.0}
    await post_all(served, kept_settings, path, *norms, steep)
    health = await get(served, kept_settings, "/v1/runs/r/health")
    (gold,) = health["gold"]
    assert [point["step"] for point in gold["points"]] == list(range(8))
    assert gold["advice"]["action"] == "raise_regularisation"
    assert gold["advice"]["grounds"] == ["gradient_norm"]
    assert (health["status"], health["streams"]) == ("warn", [])
    assert (await get(served, kept_settings, "/v1/runs/r"))["gold_sources"] == ["tests"]


async def test_gold_below_half_its_peak_is_critical(
    served: Served, kept_settings: Settings
) -> None:
    def gold_items(gold: float, proxy: float) -> list[dict[str, object]]:
        names = [f"p{number // 2}" for number in range(40)]
        return [{"prompt": name, "proxy": proxy, "gold": gold} for name in names]

    before = {"step": 0, "source": "tests", "items": gold_items(1.0, 0.5)}
    after = {"step": 200, "source": "tests", "items": gold_items(0.25, 0.9)}
    await post_all(served, kept_settings, "/v1/runs/r/gold", before, after)
    health = await get(served, kept_settings, "/v1/runs/r/health")
    assert health["gold"][0]["advice"]["action"] == "stop"
    assert health["status"] == "critical"


@pytest.mark.parametrize("path", ["", "/health", "/series"])
async def test_an_unknown_run_is_not_found(
    served: Served, kept_settings: Settings, path: str
) -> None:
    async with served(kept_settings) as client:
        answer = await client.get(f"/v1/runs/unknown{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "run_not_found")
        assert "unknown" in answer.json()["detail"]


REFUSED = [
    ("telemetry", {"values": {"kl": 1.0}}, "step"),
    ("telemetry", {"step": 1, "values": {}}, "values"),
    ("telemetry", {"step": 1, "values": {"kl": "much"}}, "values.kl"),
    ("telemetry", {**TELEMETRY, "mood": "good"}, "mood"),
    ("gold", {"step": 1, "source": "tests"}, "body"),
    ("gold", {"step": 1, "source": "tests", "items": GOLD_ITEMS[:1] * 65}, "body"),
    (
        "gold",
        {"step": 1, "source": "t", "items": [{**GOLD_ITEMS[0], "gold": 1e300}]},
        "items.0.gold",
    ),
]


@pytest.mark.parametrize(("route", "body", "field"), REFUSED)
async def test_a_malformed_body_is_rejected_with_its_field(
    served: Served, kept_settings: Settings, route: str, body: object, field: str
) -> None:
    async with served(kept_settings) as client:
        answer = await client.post(f"/v1/runs/r/{route}", json=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
        assert answer.json()["errors"][0]["field"] == field
        long = await client.post(f"/v1/runs/{'r' * 257}/{route}", json=TELEMETRY)
        assert long.status_code == 422


ROUTES = [
    ("GET", "/v1/runs", None),
    ("GET", "/v1/runs/r", None),
    ("GET", "/v1/runs/r/health", None),
    ("GET", "/v1/runs/r/series", None),
    ("POST", "/v1/runs/r/telemetry", TELEMETRY),
    ("POST", "/v1/runs/r/gold", {"step": 1, "source": "tests", "items": GOLD_ITEMS}),
]


@pytest.mark.parametrize(("method", "path", "body"), ROUTES)
async def test_every_route_requires_a_key(
    served: Served, scripted_settings: Settings, method: str, path: str, body: object
) -> None:
    keys = Settings(api_keys=("a-key-0123456789abc",)).api_keys
    async with served(scripted_settings.model_copy(update={"api_keys": keys})) as client:
        answer = await client.request(method, path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")


@pytest.mark.parametrize(("method", "path", "body"), ROUTES)
async def test_with_runs_off_every_route_is_not_found(
    served: Served, scripted_settings: Settings, method: str, path: str, body: object
) -> None:
    async with served(scripted_settings.model_copy(update={"runs": "off"})) as client:
        answer = await client.request(method, path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (404, "runs_off")


@pytest.mark.parametrize(("method", "path", "body"), ROUTES)
async def test_replies_match_their_schema(
    served: Served,
    kept_settings: Settings,
    schemas: Mapping[str, Any],
    method: str,
    path: str,
    body: object,
) -> None:
    run = {"id": "r", "step": 1}
    async with served(kept_settings) as client:
        await post(client, ["a", "nan"], run=run)
        for _, route, sent in ROUTES[4:]:
            await client.post(route, json=sent)
    async with served(kept_settings) as client:
        answer = await client.request(method, path, json=body)
        assert answer.status_code == 200, answer.text
    operation = schemas["paths"][path.replace("/r", "/{run}").replace("/{run}uns", "/runs")]
    content = operation[method.lower()]["responses"]["200"]["content"]["application/json"]
    jsonschema_rs.validate(
        {**content["schema"], "components": schemas["components"]}, answer.json()
    )


async def test_an_unreadable_file_gives_429_and_scores_are_served(
    served: Served, kept_settings: Settings
) -> None:
    assert isinstance(kept_settings.runs, Path)
    async with served(kept_settings) as client:
        kept_settings.runs.rename(kept_settings.runs.with_name("moved.db"))
        answer = await client.get("/v1/runs")
        assert (answer.status_code, answer.json()["code"]) == (429, "overloaded")
        assert answer.json()["retryable"]
        assert (await post(client, ["a"]))["results"][0]["score"] == 1.0


async def test_an_overloaded_writer_gives_429(
    served: Served, kept_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("assay_monitors.recorder.Recorder.record_telemetry", lambda *_: False)
    async with served(kept_settings) as client:
        answer = await client.post("/v1/runs/r/telemetry", json=TELEMETRY)
        assert (answer.status_code, answer.json()["code"]) == (429, "overloaded")
        assert answer.headers["retry-after"] == "1"


async def test_severity_series_cover_the_runs_requested_last(
    served: Served, kept_settings: Settings
) -> None:
    await score_some(served, kept_settings)
    async with served(kept_settings) as client:
        for number in range(17):
            await post(client, ["a"], run={"id": f"run-{number:02}"})
    app = create_app(kept_settings)
    async with serving(app) as client:
        await client.get("/v1/runs/team/exp/health")
        firing = {"run": "team/exp", "rule": "null_share"}
        assert value(components_of(app).metrics, "assay_run_severity", **firing) == 2
        for number in range(17):
            await client.get(f"/v1/runs/run-{number:02}/health")
        page = (await client.get("/metrics")).text
    shown = [line for line in page.splitlines() if line.startswith("assay_run_severity{")]
    assert len(shown) == 16 * len(DEFAULT_RULES)
    assert not any('run="team/exp"' in line or 'run="run-00"' in line for line in shown)


async def test_a_hanging_disk_delays_reads_and_no_score(
    served: Served, kept_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, release, runs = threading.Event(), threading.Event(), RunHistory.runs

    def hanging_runs(history: RunHistory) -> list[Run]:
        reading.set()
        assert release.wait(30)
        return runs(history)

    monkeypatch.setattr(RunHistory, "runs", hanging_runs)
    async with served(kept_settings) as client:
        requests = [asyncio.create_task(client.get("/v1/runs")) for _ in range(8)]
        assert await asyncio.to_thread(reading.wait, 30)
        reply = await post(client, ["a"], run={"id": "r"})
        assert reply["results"][0]["score"] == 1.0
        assert not any(request.done() for request in requests)
        release.set()
        answers = await asyncio.gather(*requests)
        assert [answer.status_code for answer in answers] == [200] * 8
