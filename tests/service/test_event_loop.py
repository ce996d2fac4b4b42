"""The monitor of the event loop: it counts what holds it, by cause, and names the place."""

import asyncio
import logging
import time
from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry
from support.servers import loaded

from assay import event_loop
from assay.api.components import components_of
from assay.event_loop import BEAT_SECONDS, STALL_SECONDS, EventLoopMonitor
from assay.metrics import Metrics
from assay.settings import Settings

HELD_SECONDS = STALL_SECONDS + 5 * BEAT_SECONDS


def compute() -> None:
    ends = time.thread_time() + HELD_SECONDS
    while time.thread_time() < ends:
        pass


def wait() -> None:
    time.sleep(HELD_SECONDS)


def stalls(metrics: Metrics, cause: str) -> float:
    return metrics.registry.get_sample_value("assay_event_loop_stalls_total", {"cause": cause}) or 0


async def wait_for_beat(metrics: Metrics) -> None:
    """Wait until the monitor has measured again."""

    def beats() -> float:
        return metrics.registry.get_sample_value("assay_event_loop_lag_seconds_count") or 0

    before = beats()
    while beats() == before:  # noqa: ASYNC110 the monitor offers nothing to wait for
        await asyncio.sleep(BEAT_SECONDS)


@pytest.mark.parametrize(("hold", "cause"), [(compute, "computing"), (wait, "waiting")])
async def test_a_callback_that_holds_the_loop_is_counted_and_its_place_logged(
    hold: Callable[[], None],
    cause: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(event_loop, "LOG_SECONDS", 0)
    monkeypatch.setattr(event_loop, "MIN_LOGGED_WAIT_SECONDS", 0)
    metrics = Metrics(CollectorRegistry())
    monitor = EventLoopMonitor(metrics)
    monitor.start()
    await wait_for_beat(metrics)
    before = stalls(metrics, cause)
    with caplog.at_level(logging.WARNING, "assay.event_loop"):
        asyncio.get_running_loop().call_soon(hold)
        await wait_for_beat(metrics)
    monitor.stop()
    assert stalls(metrics, cause) > before
    lines = [record.getMessage() for record in caplog.records]
    assert any(
        line.startswith(f"the event loop was {cause} for ") and line.endswith(hold.__name__)
        for line in lines
    ), lines


async def test_further_stalls_are_counted_and_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    metrics = Metrics(CollectorRegistry())
    monitor = EventLoopMonitor(metrics)
    monitor.start()
    for _ in range(3):
        asyncio.get_running_loop().call_soon(compute)
        await wait_for_beat(metrics)
    monitor.stop()
    assert stalls(metrics, "computing") >= 3
    assert len(caplog.records) == 1


async def test_the_server_measures_its_loop_from_its_start_to_its_end() -> None:
    async with loaded(Settings(models=("reference",), runs="off")) as app:
        metrics = components_of(app).metrics
        await wait_for_beat(metrics)
    ended = metrics.registry.get_sample_value("assay_event_loop_lag_seconds_count")
    await asyncio.sleep(3 * BEAT_SECONDS)
    assert metrics.registry.get_sample_value("assay_event_loop_lag_seconds_count") == ended
