"""RunEvaluator: evaluations after commits, at bounded intervals and cost, and their alerts."""

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
from assay_monitors.health import ChannelHealth
from assay_monitors.history import RunHistory
from assay_monitors.reports import RunHealth, StreamHealth

RUN = {"id": "team/exp", "step": 3}
BAD, GOOD = ["nan"] * 128 + ["ccc"] * 128, ["ccc", "dd"] * 512


@pytest.fixture
def kept_settings(scripted_settings: Settings, tmp_path: Path) -> Settings:
    changes = {"runs": tmp_path / "runs.db", "evaluation_seconds": 0.01}
    return scripted_settings.model_copy(update=changes)


class RecordingEvaluator(RunEvaluator):
    """An evaluator that records the runs it evaluates, and fails on a run named `bad`."""

    def __init__(self, metrics: Metrics, interval: float) -> None:
        clock = asyncio.get_running_loop().time
        gauges = RunGauges(metrics.runs)
        super().__init__(
            gauges=gauges, notify=None, interval=interval, clock=clock, series=metrics.runs
        )
        self.evaluated: asyncio.Queue[str] = asyncio.Queue()
        self._record: Callable[[str], None] = self.evaluated.put_nowait
        self._own = asyncio.get_running_loop()

    def evaluate(self, history: RunHistory, run: str) -> None:
        self._own.call_soon_threadsafe(self._record, run)
        if run == "bad":
            raise ZeroDivisionError


@asynccontextmanager
async def running_evaluator(metrics: Metrics, interval: float) -> AsyncIterator[RecordingEvaluator]:
    evaluator = RecordingEvaluator(metrics, interval)
    evaluator.open(RunHistory(Path("nowhere")))
    yield evaluator
    await evaluator.close()


async def test_a_run_is_evaluated_once_per_interval_however_often_it_commits() -> None:
    async with running_evaluator(new_metrics(), 1000.0) as evaluator:
        for _ in range(5):
            evaluator.on_commit({"a"})
        assert await evaluator.evaluated.get() == "a"
        evaluator.on_commit({"a"})
        evaluator.on_commit({"b"})
        assert await evaluator.evaluated.get() == "b"
        evaluator.on_commit({"c"})
        assert await evaluator.evaluated.get() == "c"
        assert evaluator.evaluated.empty()


async def test_a_run_is_evaluated_again_after_the_interval() -> None:
    async with running_evaluator(new_metrics(), 0.001) as evaluator:
        for _ in range(3):
            evaluator.on_commit({"a"})
            assert await evaluator.evaluated.get() == "a"


async def test_a_failed_evaluation_is_counted_and_later_ones_follow() -> None:
    metrics = new_metrics()
    async with running_evaluator(metrics, 0.001) as evaluator:
        for run in ("bad", "good", "bad", "last"):
            evaluator.on_commit({run})
            assert await evaluator.evaluated.get() == run
    assert value(metrics, "assay_run_evaluations_total", outcome="failed") == 2
    assert value(metrics, "assay_run_evaluations_total", outcome="ok") >= 1


async def test_waiting_runs_are_bounded_and_skipped_ones_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(assay.runs.evaluator, "MAX_PENDING", 2)
    metrics = new_metrics()
    async with running_evaluator(metrics, 1000.0) as evaluator:
        evaluator.on_commit(["a", "b", "c"])
        assert {await evaluator.evaluated.get(), await evaluator.evaluated.get()} == {"b", "c"}
    assert value(metrics, "assay_run_evaluations_total", outcome="skipped") == 1


async def test_commits_before_opening_and_after_closing_are_ignored() -> None:
    evaluator = RecordingEvaluator(new_metrics(), 1.0)
    evaluator.on_commit({"a"})
    evaluator.open(RunHistory(Path("nowhere")))
    await evaluator.close()
    evaluator.on_commit({"a"})
    assert evaluator.evaluated.empty()


async def test_a_run_that_takes_long_rests_itself_and_holds_up_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(assay.runs.evaluator, "rest_after", lambda seconds: 1000.0)
    monkeypatch.setattr(assay.runs.evaluator, "MAX_REST_SECONDS", 0.0)
    async with running_evaluator(new_metrics(), 0.001) as evaluator:
        for other in ("b", "c", "d"):
            evaluator.on_commit(["large", other])
            names = 2 if other == "b" else 1
            assert {await evaluator.evaluated.get() for _ in range(names)} - {"large"} == {other}
        assert evaluator.evaluated.empty()


def test_evaluation_takes_two_percent_of_the_time() -> None:
    assert rest_after(1.0) == 49.0
    assert 2.0 / (2.0 + rest_after(2.0)) == pytest.approx(0.02)


async def test_an_alert_is_posted_when_it_begins_and_when_it_ends(
    kept_settings: Settings,
) -> None:
    with receiving() as receiver:
        url = read_settings({"ASSAY_ALERT_URL": receiver.url}).alert_url
        app = create_app(kept_settings.model_copy(update={"alert_url": url}))
        async with serving(app) as client:
            await post(client, BAD, run=RUN)
            first = (await asyncio.to_thread(receiver.next_post)).json
            await post(client, GOOD, run={"id": "team/exp", "step": 4})
            last = (await asyncio.to_thread(receiver.next_post)).json
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
    assert (first["type"], last["type"]) == ("run.alert.firing", "run.alert.resolved")
    alert = first["data"]
    assert (alert["run"], alert["model"], alert["split"]) == ("team/exp", "scripted@1", "train")
    assert (alert["rule"], alert["severity"], alert["since_step"]) == ("null_share", "critical", 3)
    assert (alert["value"], alert["threshold"]) == (0.5, 0.2)
    assert last["data"]["rule"] == "null_share"


async def test_a_hanging_receiver_delays_neither_scores_nor_the_shutdown(
    kept_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Webhook.close, "__defaults__", (0.0,))
    with receiving() as receiver:
        receiver.open.clear()
        url = read_settings({"ASSAY_ALERT_URL": receiver.url}).alert_url
        app = create_app(kept_settings.model_copy(update={"alert_url": url}))
        async with serving(app) as client:
            await post(client, BAD, run=RUN)
            await asyncio.to_thread(receiver.next_post)
            reply = await post(client, ["a"], run={"id": "other"})
            assert reply["results"][0]["score"] == 1.0
        assert not receiver.open.is_set()


@pytest.mark.parametrize(
    ("variables", "reason"),
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
def test_invalid_alert_settings_are_rejected_at_start(
    variables: dict[str, str], reason: str
) -> None:
    settings = read_settings({"ASSAY_MODELS": "reference", **variables})
    with pytest.raises(SettingsError) as refused:
        create_app(settings)
    assert reason in str(refused.value)
    assert "hush" not in f"{refused.value} {refused.value.hint} {settings}"


def run_health(run: str, splits: int) -> RunHealth:
    score = ChannelHealth(mean=1.0, std=0.5, average=1.0, peak=1.0, peak_step=0, null_share=0.25)
    streams = [
        StreamHealth(
            model="m@1",
            split=f"s{number}",
            step=7,
            status="ok",
            rules=[],
            channels={"score": score},
        )
        for number in range(splits)
    ]
    return RunHealth(run, "warn", streams, [])


def samples(metrics: Metrics) -> int:
    names = ("status", "step", "score_mean", "score_std", "null_share")
    families = {f"assay_run_{name}" for name in names}
    shown = [family for family in metrics.registry.collect() if family.name in families]
    return sum(len(family.samples) for family in shown)


def test_the_number_of_series_is_bounded_for_any_number_of_runs() -> None:
    metrics = new_metrics()
    gauges = RunGauges(metrics.runs)
    for number in range(40):
        gauges.show(run_health(f"run-{number}", 100))
    assert samples(metrics) == 16 * (1 + 4 * 4)
    gauges.show(run_health("run-39", 1))
    assert samples(metrics) == 15 * (1 + 4 * 4) + (1 + 4)
    assert value(metrics, "assay_run_status", run="run-39") == 1
