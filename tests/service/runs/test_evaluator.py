"""Runs are looked at when something of them was written: soon, seldom, on no score's way."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.doubles import new_metrics, value
from support.scoring_requests import post
from support.servers import serving
from support.webhook_receivers import receiving

import assay.runs.evaluator
from assay.api.components import components_of
from assay.app import create_app
from assay.errors import SettingsError
from assay.metrics import Metrics
from assay.runs.evaluator import RunEvaluator, rest_after
from assay.runs.gauges import RunGauges
from assay.runs.webhook import Webhook
from assay.settings import Settings, read_settings
from assay_monitors.history import RunHistory
from assay_monitors.reports import ChannelHealth, RunHealth, StreamHealth

RUN = {"id": "team/exp", "step": 3}
BAD, GOOD = ["nan"] * 128 + ["ccc"] * 128, ["ccc", "dd"] * 512


@pytest.fixture
def kept_settings(scripted_settings: Settings, tmp_path: Path) -> Settings:
    changes = {"runs": tmp_path / "runs.db", "watch_seconds": 0.01}
    return scripted_settings.model_copy(update=changes)


class RecordingEvaluator(RunEvaluator):
    """An evaluator that records the runs it evaluates, and fails on a run named `bad`."""

    def __init__(self, metrics: Metrics, interval: float) -> None:
        clock = asyncio.get_running_loop().time
        gauges = RunGauges(metrics.runs)
        super().__init__(
            gauges=gauges, notify=None, interval=interval, clock=clock, series=metrics.runs
        )
        self.seen: asyncio.Queue[str] = asyncio.Queue()
        self._record: Callable[[str], None] = self.seen.put_nowait
        self._own = asyncio.get_running_loop()

    def evaluate(self, history: RunHistory, run: str) -> None:
        self._own.call_soon_threadsafe(self._record, run)
        if run == "bad":
            raise ZeroDivisionError


@asynccontextmanager
async def watching(metrics: Metrics, interval: float) -> AsyncIterator[RecordingEvaluator]:
    evaluator = RecordingEvaluator(metrics, interval)
    evaluator.open(RunHistory(Path("nowhere")))
    yield evaluator
    await evaluator.close()


async def test_a_run_is_looked_at_once_an_interval_however_much_comes_in() -> None:
    async with watching(new_metrics(), 1000.0) as evaluator:
        for _ in range(5):
            evaluator.on_commit({"a"})
        assert await evaluator.seen.get() == "a"
        evaluator.on_commit({"a"})
        evaluator.on_commit({"b"})
        assert await evaluator.seen.get() == "b"
        evaluator.on_commit({"c"})
        assert await evaluator.seen.get() == "c"
        assert evaluator.seen.empty()


async def test_a_run_is_looked_at_again_after_the_interval() -> None:
    async with watching(new_metrics(), 0.001) as evaluator:
        for _ in range(3):
            evaluator.on_commit({"a"})
            assert await evaluator.seen.get() == "a"


async def test_a_look_that_fails_is_counted_and_the_next_is_made() -> None:
    metrics = new_metrics()
    async with watching(metrics, 0.001) as evaluator:
        for run in ("bad", "good", "bad", "last"):
            evaluator.on_commit({run})
            assert await evaluator.seen.get() == run
    assert value(metrics, "assay_run_evaluations_total", outcome="failed") == 2
    assert value(metrics, "assay_run_evaluations_total", outcome="ok") >= 1


async def test_what_waits_is_bounded_and_what_is_skipped_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(assay.runs.evaluator, "MAX_PENDING", 2)
    metrics = new_metrics()
    async with watching(metrics, 1000.0) as evaluator:
        evaluator.on_commit(["a", "b", "c"])
        assert {await evaluator.seen.get(), await evaluator.seen.get()} == {"b", "c"}
    assert value(metrics, "assay_run_evaluations_total", outcome="skipped") == 1


async def test_what_is_written_before_and_after_is_nobodys_news() -> None:
    evaluator = RecordingEvaluator(new_metrics(), 1.0)
    evaluator.on_commit({"a"})
    evaluator.open(RunHistory(Path("nowhere")))
    await evaluator.close()
    evaluator.on_commit({"a"})
    assert evaluator.seen.empty()


def test_looking_takes_a_fiftieth_of_a_processor() -> None:
    assert rest_after(1.0) == 49.0
    assert 2.0 / (2.0 + rest_after(2.0)) == pytest.approx(0.02)


async def test_an_alert_reaches_the_webhook_when_it_begins_and_when_it_ends(
    kept_settings: Settings,
) -> None:
    with receiving() as receiver:
        given = {"ASSAY_ALERT_URL": receiver.url}
        url = read_settings(given).alert_url
        app = create_app(kept_settings.model_copy(update={"alert_url": url}))
        async with serving(app) as client:
            await post(client, BAD, run=RUN)
            begun = (await asyncio.to_thread(receiver.next)).json
            await post(client, GOOD, run={"id": "team/exp", "step": 4})
            ended = (await asyncio.to_thread(receiver.next)).json
            metrics = components_of(app).metrics
            assert value(metrics, "assay_run_evaluations_total", outcome="ok") >= 1
            health = (await client.get("/v1/runs/team/exp/health")).json()
            rank = ("ok", "warn", "critical").index(health["status"])
            assert value(metrics, "assay_run_status", run="team/exp") == rank
            stream = {"run": "team/exp", "model": "scripted@1", "split": "train"}
            assert value(metrics, "assay_run_step", **stream) == 4
            assert value(metrics, "assay_run_score_mean", **stream) == 2.5
            assert value(metrics, "assay_run_score_std", **stream) == 0.5
            assert value(metrics, "assay_run_null_share", **stream) == 0
    assert (begun["type"], ended["type"]) == ("run.alert.firing", "run.alert.resolved")
    told = begun["data"]
    assert (told["run"], told["model"], told["split"]) == ("team/exp", "scripted@1", "train")
    assert (told["rule"], told["severity"], told["since_step"]) == ("null_share", "critical", 3)
    assert (told["value"], told["threshold"]) == (0.5, 0.2)
    assert ended["data"]["rule"] == "null_share"


async def test_a_receiver_that_hangs_holds_up_neither_a_score_nor_the_stop(
    kept_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Webhook.close, "__defaults__", (0.0,))
    with receiving() as receiver:
        receiver.open.clear()
        url = read_settings({"ASSAY_ALERT_URL": receiver.url}).alert_url
        app = create_app(kept_settings.model_copy(update={"alert_url": url}))
        async with serving(app) as client:
            await post(client, BAD, run=RUN)
            await asyncio.to_thread(receiver.next)
            reply = await post(client, ["a"], run={"id": "other"})
            assert reply["results"][0]["score"] == 1.0
        assert not receiver.open.is_set()


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"ASSAY_ALERT_SECRET": "whsec_x"}, "ASSAY_ALERT_SECRET without ASSAY_ALERT_URL"),
        ({"ASSAY_ALERT_URL": "hush"}, "ASSAY_ALERT_URL: a URL to post to"),
        (
            {"ASSAY_ALERT_URL": "http://a/hush", "ASSAY_ALERT_SECRET": "hush"},
            "ASSAY_ALERT_SECRET: ",
        ),
        ({"ASSAY_ALERT_URL": "http://a/hush", "ASSAY_RUNS": "off"}, "ASSAY_RUNS=off"),
    ],
)
def test_what_cannot_alert_is_refused_at_the_start(given: dict[str, str], named: str) -> None:
    settings = read_settings({"ASSAY_MODELS": "reference", **given})
    with pytest.raises(SettingsError) as refused:
        create_app(settings)
    assert named in str(refused.value)
    assert "hush" not in f"{refused.value} {refused.value.hint} {settings}"


def seen(run: str, splits: int) -> RunHealth:
    channels = {"score": ChannelHealth(1.0, 0.5, 1.0, 1.0, 0, 0.25)}
    streams = [StreamHealth("m@1", f"s{n}", 7, "ok", [], channels) for n in range(splits)]
    return RunHealth(run, "warn", streams, [])


def samples(metrics: Metrics) -> int:
    names = ("status", "step", "score_mean", "score_std", "null_share")
    families = {f"assay_run_{name}" for name in names}
    found = [one for one in metrics.registry.collect() if one.name in families]
    return sum(len(one.samples) for one in found)


def test_the_series_are_bounded_whatever_names_are_made_up() -> None:
    metrics = new_metrics()
    gauges = RunGauges(metrics.runs)
    for number in range(40):
        gauges.show(seen(f"run-{number}", 100))
    assert samples(metrics) == 16 * (1 + 4 * 4)
    gauges.show(seen("run-39", 1))
    assert samples(metrics) == 15 * (1 + 4 * 4) + (1 + 4)
    assert value(metrics, "assay_run_status", run="run-39") == 1
