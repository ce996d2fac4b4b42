"""Who follows a run hears what is new; there is room for so many; a server that stops lets go."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from support.doubles import new_metrics

from assay.errors import Overloaded
from assay.runs.monitor import RunMonitor
from assay.runs.subscribers import Subscribers
from assay_monitors.gold import GoldPoint
from assay_monitors.history import RunHistory, Update
from assay_monitors.retention import Retention
from assay_monitors.store import Changes, RunStore

LONG = 60.0


@pytest.fixture
async def monitor(tmp_path: Path) -> AsyncIterator[RunMonitor]:
    times = iter(range(10**6))
    monitor = RunMonitor(tmp_path / "runs.db", new_metrics(), lambda: float(next(times)))
    await monitor.open()
    yield monitor
    await monitor.close()


async def known(subscribers: Subscribers, run: str) -> Update:
    """The run's news, once the writer has written them."""
    for _ in range(10_000):
        if (news := await subscribers.latest(run)) is not None:
            return news
    raise AssertionError("the run was never written")


async def test_a_follower_hears_what_it_began_with_and_then_what_is_new(
    monitor: RunMonitor,
) -> None:
    subscribers = Subscribers(monitor, poll=0.001, heartbeat=LONG)
    monitor.record_telemetry("r", 3, {"kl": 1.0})
    news = await known(subscribers, "r")
    subscriber = subscribers.join("r", news)
    told = subscriber.updates()
    assert await anext(told) == news
    assert news.step == 3
    monitor.record_telemetry("r", 9, {"kl": 1.0})
    async with asyncio.timeout(30):
        latest = await anext(told)
    assert latest is not None
    assert (latest.step, latest.last_seen > news.last_seen) == (9, True)
    subscribers.close()
    assert [one async for one in told] == []


async def test_silence_is_broken_by_a_sign_of_life(monitor: RunMonitor) -> None:
    subscribers = Subscribers(monitor, poll=LONG, heartbeat=0.001)
    monitor.record_telemetry("r", 3, {"kl": 1.0})
    subscriber = subscribers.join("r", await known(subscribers, "r"))
    told = subscriber.updates()
    assert await anext(told) is not None
    assert [await anext(told), await anext(told)] == [None, None]
    subscribers.close()


async def test_a_slow_follower_hears_only_the_latest(monitor: RunMonitor) -> None:
    subscribers = Subscribers(monitor, poll=LONG, heartbeat=LONG)
    monitor.record_telemetry("r", 0, {"kl": 1.0})
    first = await known(subscribers, "r")
    subscriber = subscribers.join("r", first)
    told = subscriber.updates()
    assert await anext(told) == first
    for step in (1, 2, 3):
        subscriber.publish(Update(first.last_seen + step, step))
    assert await anext(told) == Update(first.last_seen + 3, 3)
    subscribers.close()
    assert [one async for one in told] == []


async def test_no_more_may_follow_than_there_is_room_for(monitor: RunMonitor) -> None:
    subscribers = Subscribers(monitor, maximum=2, poll=LONG)
    news = Update(1.0, 1)
    one, _ = subscribers.join("r", news), subscribers.join("s", news)
    with pytest.raises(Overloaded) as refused:
        subscribers.join("r", news)
    assert refused.value.hint is not None
    assert refused.value.retry_after
    subscribers.leave(one)
    subscribers.leave(one)
    assert len(subscribers) == 1
    subscribers.join("r", news)
    assert len(subscribers) == 2
    subscribers.close()


async def test_a_run_that_is_no_longer_kept_is_not_followed_any_more(monitor: RunMonitor) -> None:
    subscribers = Subscribers(monitor, poll=0.001, heartbeat=LONG)
    subscriber = subscribers.join("gone", Update(1.0, 1))
    async with asyncio.timeout(30):
        assert [one async for one in subscriber.updates()] == [Update(1.0, 1)]
    subscribers.close()


async def test_whoever_comes_while_the_server_stops_is_told_so(monitor: RunMonitor) -> None:
    subscribers = Subscribers(monitor)
    subscribers.close()
    assert [one async for one in subscribers.join("r", Update(1.0, 1)).updates()] == []


async def test_a_file_that_is_busy_for_a_look_costs_nothing_but_the_look(
    monitor: RunMonitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    monitor.record_telemetry("r", 3, {"kl": 1.0})
    subscribers = Subscribers(monitor, poll=0.001, heartbeat=LONG)
    news = await known(subscribers, "r")
    read = monitor.read

    async def busy(work: Callable[[RunHistory], object]) -> object:
        nonlocal looks
        looks += 1
        if looks < 3:
            raise Overloaded("the file is busy")
        return await read(work)

    monkeypatch.setattr(monitor, "read", busy)
    told = subscribers.join("r", news).updates()
    assert await anext(told) == news
    monitor.record_telemetry("r", 4, {"kl": 1.0})
    async with asyncio.timeout(30):
        latest = await anext(told)
    assert latest is not None
    assert latest.step == 4
    assert looks >= 3
    subscribers.close()


def test_news_read_no_sums(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    store = RunStore(path, Retention(), lambda: 7.0)
    changes = Changes()
    changes.gold["only-gold", "tests", 4] = GoldPoint(4, gradient_norm=1.0)
    store.write(changes)
    store.close()
    news = RunHistory(path).updates(["only-gold", "nobody"])
    assert news == {"only-gold": Update(7.0, None)}
