"""Subscribers: updates, heartbeats, the maximum, and the end of subscriptions."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message
from support.doubles import new_metrics

from assay.api.runs import SubscriberStream
from assay.errors import Overloaded
from assay.runs.monitor import RunMonitor
from assay.runs.subscribers import Subscribers
from assay_monitors.changes import Changes
from assay_monitors.gold import GoldPoint
from assay_monitors.history import RunHistory, Update
from assay_monitors.retention import Retention
from assay_monitors.store import RunStore

LONG = 60.0


@pytest.fixture
async def monitor(tmp_path: Path) -> AsyncIterator[RunMonitor]:
    times = iter(range(10**6))
    monitor = RunMonitor(tmp_path / "runs.db", new_metrics(), lambda: float(next(times)))
    await monitor.open()
    yield monitor
    await monitor.close()


async def wait_until_recorded(subscribers: Subscribers, run: str) -> Update:
    """Return the run's update, once the writer has written it."""
    for _ in range(10_000):
        update = await subscribers.latest(run)
        if update is not None and update.step is not None:
            return update
    raise AssertionError("the run was never written")


async def test_a_subscriber_receives_the_initial_update_and_then_newer_ones(
    monitor: RunMonitor,
) -> None:
    subscribers = Subscribers(monitor, poll=0.001, heartbeat=LONG)
    monitor.record_telemetry("r", 3, {"kl": 1.0})
    update = await wait_until_recorded(subscribers, "r")
    subscriber = subscribers.join("r", update)
    updates = subscriber.updates()
    assert await anext(updates) == update
    assert update.step == 3
    monitor.record_telemetry("r", 9, {"kl": 1.0})
    async with asyncio.timeout(30):
        latest = await anext(updates)
    assert latest is not None
    assert (latest.step, latest.last_seen > update.last_seen) == (9, True)
    subscribers.close()
    assert [item async for item in updates] == []


async def test_a_subscriber_without_updates_receives_heartbeats(monitor: RunMonitor) -> None:
    subscribers = Subscribers(monitor, poll=LONG, heartbeat=0.001)
    monitor.record_telemetry("r", 3, {"kl": 1.0})
    subscriber = subscribers.join("r", await wait_until_recorded(subscribers, "r"))
    updates = subscriber.updates()
    assert await anext(updates) is not None
    assert [await anext(updates), await anext(updates)] == [None, None]
    subscribers.close()


async def test_a_slow_subscriber_receives_only_the_latest_update(monitor: RunMonitor) -> None:
    subscribers = Subscribers(monitor, poll=LONG, heartbeat=LONG)
    monitor.record_telemetry("r", 0, {"kl": 1.0})
    first = await wait_until_recorded(subscribers, "r")
    subscriber = subscribers.join("r", first)
    updates = subscriber.updates()
    assert await anext(updates) == first
    for step in (1, 2, 3):
        subscriber.publish(Update(first.last_seen + step, step))
    assert await anext(updates) == Update(first.last_seen + 3, 3)
    subscribers.close()
    assert [item async for item in updates] == []


async def test_subscribers_beyond_the_maximum_are_refused(monitor: RunMonitor) -> None:
    subscribers = Subscribers(monitor, maximum=2, poll=LONG)
    update = Update(1.0, 1)
    first, _ = subscribers.join("r", update), subscribers.join("s", update)
    with pytest.raises(Overloaded) as refused:
        subscribers.join("r", update)
    assert refused.value.hint is not None
    assert refused.value.retry_after
    subscribers.leave(first)
    subscribers.leave(first)
    assert len(subscribers) == 1
    subscribers.join("r", update)
    assert len(subscribers) == 2
    subscribers.close()


async def test_a_key_has_a_share_of_the_subscriptions_and_the_next_key_gets_one(
    monitor: RunMonitor,
) -> None:
    subscribers = Subscribers(monitor, maximum=5, share=2, poll=LONG)
    update = Update(1.0, 1)
    for _ in range(2):
        subscribers.join("r", update, "alice")
    with pytest.raises(Overloaded):
        subscribers.join("r", update, "alice")
    subscribers.join("r", update, "bob")
    assert len(subscribers) == 3
    subscribers.close()


async def test_a_subscription_to_a_deleted_run_ends(monitor: RunMonitor) -> None:
    subscribers = Subscribers(monitor, poll=0.001, heartbeat=LONG)
    subscriber = subscribers.join("gone", Update(1.0, 1))
    async with asyncio.timeout(30):
        assert [item async for item in subscriber.updates()] == [Update(1.0, 1)]
    subscribers.close()


async def test_a_subscription_during_the_shutdown_ends_at_once(monitor: RunMonitor) -> None:
    subscribers = Subscribers(monitor)
    subscribers.close()
    assert [item async for item in subscribers.join("r", Update(1.0, 1)).updates()] == []


async def test_a_busy_file_costs_only_the_polls_that_hit_it(
    monitor: RunMonitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    polls = 0
    monitor.record_telemetry("r", 3, {"kl": 1.0})
    subscribers = Subscribers(monitor, poll=0.001, heartbeat=LONG)
    update = await wait_until_recorded(subscribers, "r")
    read = monitor.read

    async def busy(work: Callable[[RunHistory], object]) -> object:
        nonlocal polls
        polls += 1
        if polls < 3:
            raise Overloaded("the file is busy")
        return await read(work)

    monkeypatch.setattr(monitor, "read", busy)
    updates = subscribers.join("r", update).updates()
    assert await anext(updates) == update
    monitor.record_telemetry("r", 4, {"kl": 1.0})
    async with asyncio.timeout(30):
        latest = await anext(updates)
    assert latest is not None
    assert latest.step == 4
    assert polls >= 3
    subscribers.close()


def test_updates_are_read_without_summaries(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    store = RunStore(path, Retention(), lambda: 7.0)
    changes = Changes()
    changes.gold["only-gold", "tests", 4] = GoldPoint(4, gradient_norm=1.0)
    store.write(changes)
    store.close()
    updates = RunHistory(path).updates(["only-gold", "unknown"])
    assert updates == {"only-gold": Update(7.0, None)}


async def test_a_subscriber_leaves_if_its_stream_never_begins(monitor: RunMonitor) -> None:
    subscribers = Subscribers(monitor, poll=LONG)
    stream = SubscriberStream(subscribers, subscribers.join("r", Update(1.0, 1)))

    async def send(message: Message) -> None:
        raise OSError(message["type"])

    async def receive() -> Message:
        raise AssertionError("nothing is read")

    scope = {"type": "http", "asgi": {"spec_version": "2.4"}, "method": "GET", "headers": []}
    with pytest.raises(ClientDisconnect):
        await stream(scope, receive, send)
    assert len(subscribers) == 0
    subscribers.close()
