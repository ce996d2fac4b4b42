"""Retries, deadlines, balance and cancellation, with the requests that real servers received."""

import asyncio
import socket
from functools import partial
from operator import add
from typing import Any

import pytest
from support.engine_calls import Events, ManualClock, call_of, read_status, transport
from support.engine_cards import engine_card, raws_of
from support.engine_servers import EngineServer, assay, vllm
from support.servers import free_port

from assay_models import deadlines
from assay_models.engines.client import open_engine
from assay_models.engines.errors import EngineError, bad_reply
from assay_models.engines.http import Reply
from assay_models.engines.listener import CallOutcome, Place

ROWS = [[1, 2, 3], [4]]


@pytest.mark.parametrize("status", [408, 429, 502, 503, 504])
async def test_call_that_may_succeed_later_is_sent_again_up_to_the_limit(status: int) -> None:
    events, clock = Events(), ManualClock()
    async with EngineServer(vllm, status=status).listening() as server:
        sender = transport(server.url, events=events, clock=clock)
        with pytest.raises(EngineError) as raised:
            await sender.call(call_of([1]), read_status)
        assert (raised.value.code, raised.value.retryable) == ("engine_unavailable", True)
        assert len(server.posts) == 4
        assert clock.pauses == [0.1, 0.2, 0.4]
        assert len(events.retries) == 3
        await sender.close()


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 413, 415, 422, 431])
async def test_call_that_is_refused_is_sent_once(status: int) -> None:
    events = Events()
    async with EngineServer(vllm, status=status).listening() as server:
        sender = transport(server.url, server.url + "/", events=events)
        with pytest.raises(EngineError) as raised:
            await sender.call(call_of([1]), read_status)
        assert (raised.value.code, raised.value.retryable) == ("engine_refused", False)
        assert "quotes" not in raised.value.detail
        assert len(server.posts) == 1
        assert events.outcomes == ["refused"]
        await sender.close()


@pytest.mark.parametrize("status", [424, 500, 501, 507])
async def test_call_that_fails_is_sent_once_more_to_another_url(status: int) -> None:
    async with (
        EngineServer(vllm, status=status).listening() as broken,
        EngineServer(vllm).listening() as whole,
        EngineServer(vllm, status=status).listening() as third,
    ):
        sender = transport(broken.url, whole.url)
        assert await sender.call(call_of([1]), read_status) == 200
        assert (len(broken.posts), len(whole.posts)) == (1, 1)
        await sender.close()
        sender = transport(broken.url, third.url, whole.url)
        with pytest.raises(EngineError):
            await sender.call(call_of([1]), read_status)
        assert (len(broken.posts), len(third.posts), len(whole.posts)) == (2, 1, 1)
        await sender.close()


async def test_call_that_fails_at_the_only_url_is_not_sent_again() -> None:
    async with EngineServer(vllm, status=500).listening() as server:
        sender = transport(server.url)
        with pytest.raises(EngineError) as raised:
            await sender.call(call_of([1]), read_status)
        assert raised.value.code == "engine_unavailable"
        assert len(server.posts) == 1
        await sender.close()


async def test_pause_is_the_one_that_retry_after_asks_for() -> None:
    clock = ManualClock()
    async with EngineServer(vllm, status=429, headers={"retry-after": "7"}).listening() as server:
        sender = transport(server.url, clock=clock, tries=1, draw=lambda: 0.0)
        with pytest.raises(EngineError) as raised:
            await sender.call(call_of([1]), read_status)
        assert clock.pauses == [7.0]
        assert raised.value.retry_after == 7.0
        await sender.close()


@pytest.mark.parametrize("value", ["1e9", "86400", "Fri, 31 Dec 9999 23:59:59 GMT"])
async def test_retry_after_beyond_the_limit_ends_the_call_at_once(value: str) -> None:
    async with EngineServer(vllm, status=503, headers={"retry-after": value}).listening() as server:
        sender = transport(server.url)
        with pytest.raises(EngineError):
            await sender.call(call_of([1]), read_status)
        assert len(server.posts) == 1
        await sender.close()


FAR = "Mon, 01 Jan 99999999999999999999 00:00:00 GMT"


@pytest.mark.parametrize("value", ["", "soon", "-3", "nan", "inf", "Fri, 99 Foo 2020", FAR])
async def test_retry_after_that_is_no_time_counts_for_nothing(value: str) -> None:
    clock = ManualClock()
    async with EngineServer(vllm, status=503, headers={"retry-after": value}).listening() as server:
        sender = transport(server.url, clock=clock, tries=2)
        with pytest.raises(EngineError):
            await sender.call(call_of([1]), read_status)
        assert clock.pauses == [0.1, 0.2]
        await sender.close()


async def test_url_without_a_listener_is_left_for_another_at_once() -> None:
    events, clock = Events(), ManualClock()
    async with EngineServer(vllm).listening() as server:
        sender = transport(
            f"http://127.0.0.1:{free_port()}", server.url, events=events, clock=clock
        )
        assert await sender.call(call_of([1]), read_status) == 200
        assert events.calls == [(0, "unavailable"), (1, "ok")]
        assert not clock.pauses
        await sender.close()


async def test_pauses_end_with_the_deadline() -> None:
    clock = ManualClock()
    deadlines.set_latest(lambda: 1000.25)
    async with EngineServer(vllm, status=503).listening() as server:
        sender = transport(server.url, clock=clock, tries=10)
        with pytest.raises(EngineError):
            await sender.call(call_of([1]), read_status)
        assert clock.pauses == [0.1]
        assert len(server.posts) == 2
        await sender.close()


async def test_call_after_the_deadline_is_not_sent() -> None:
    deadlines.set_latest(lambda: 999.0)
    async with EngineServer(vllm).listening() as server:
        sender = transport(server.url)
        with pytest.raises(EngineError) as raised:
            await sender.call(call_of([1]), read_status)
        assert raised.value.code == "engine_timeout"
        assert not server.received
        await sender.close()


async def test_deadline_of_a_call_closes_its_connection() -> None:
    events, clock = Events(), ManualClock()
    async with EngineServer(vllm, gate=asyncio.Event()).listening() as server:
        sender = transport(server.url, events=events, clock=clock, tries=0)
        for seconds in (0.05, 0.5, 5.0):  # a call so short may not have reached the server
            deadlines.set_latest(partial(add, clock.now, seconds))
            with pytest.raises(EngineError) as raised:
                await sender.call(call_of([1]), read_status)
            assert raised.value.code == "engine_timeout"
            if server.posts:
                break
        await server.cut.wait()
        assert {*events.outcomes} == {"timeout"}
        assert events.in_flight == {0: 0}
        await sender.close()


async def test_deadline_that_moved_to_later_starts_another_try() -> None:
    clock, gate = ManualClock(), asyncio.Event()
    end = [clock.now + 0.05]

    class Moving(Events):
        def on_call(self, place: Place, outcome: CallOutcome, seconds: float, rows: int) -> None:
            super().on_call(place, outcome, seconds, rows)
            end[0] = clock.now + 60.0  # a caller that waits longer has come
            gate.set()

    events = Moving()
    deadlines.set_latest(lambda: end[0])
    async with EngineServer(vllm, gate=gate).listening() as server:
        sender = transport(server.url, events=events, clock=clock)
        assert await sender.call(call_of([1]), read_status) == 200
        assert events.outcomes == ["timeout", "ok"]
        await sender.close()


async def test_deadline_that_passed_during_a_try_starts_no_other() -> None:
    clock, events = ManualClock(), Events()
    end = clock.now + 0.05

    class Passing(Events):
        def on_call(self, place: Place, outcome: CallOutcome, seconds: float, rows: int) -> None:
            clock.now = end
            events.on_call(place, outcome, 0.0, rows)

    deadlines.set_latest(lambda: end)
    async with EngineServer(vllm, gate=asyncio.Event()).listening() as server:
        sender = transport(server.url, server.url + "/", events=Passing(), clock=clock)
        with pytest.raises(EngineError) as raised:
            await sender.call(call_of([1]), read_status)
        assert raised.value.code == "engine_timeout"
        assert events.outcomes == ["timeout"]
        await sender.close()


async def test_cancelled_call_closes_its_connection_and_leaves_no_task() -> None:
    events = Events()
    async with EngineServer(vllm, gate=asyncio.Event()).listening() as server:
        sender = transport(server.url, events=events)
        calling = asyncio.create_task(sender.call(call_of([1]), read_status))
        await server.wait_for_posts(1)
        others = asyncio.all_tasks() - {calling}
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        await server.cut.wait()
        assert server.posts[0].is_cut
        assert asyncio.all_tasks() <= others
        assert events.outcomes == ["cancelled"]
        assert (events.in_flight, sender.endpoints.all[0].tokens) == ({0: 0}, 0)
        await sender.close()


async def test_calls_beyond_the_limit_of_a_url_wait_for_a_place() -> None:
    gate, events = asyncio.Event(), Events()
    async with EngineServer(vllm, gate=gate).listening() as server:
        sender = transport(server.url, events=events, max_calls=2)
        calls = [asyncio.create_task(sender.call(call_of([n]), read_status)) for n in range(5)]
        await server.wait_for_posts(2)
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(server.posts) == 2
        calls[4].cancel()  # it waits: no place is lost with it
        gate.set()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert results[:4] == [200] * 4
        assert isinstance(results[4], asyncio.CancelledError)
        assert len(server.posts) == 4
        await sender.close()


async def test_next_call_goes_to_the_url_with_the_fewest_outstanding_tokens() -> None:
    gate = asyncio.Event()
    servers = [EngineServer(vllm, gate=gate) for _ in range(3)]
    async with servers[0].listening(), servers[1].listening(), servers[2].listening():
        sender = transport(*(server.url for server in servers), max_calls=100)
        sizes = [100, 40, 30, 30, 20, 15, 10, 5, 5]
        calls = []
        for size in sizes:
            calls.append(asyncio.create_task(sender.call(call_of([1] * size), read_status)))
            await asyncio.sleep(0)  # it is sent before the next one
        assert [endpoint.tokens for endpoint in sender.endpoints.all] == [100, 80, 75]
        gate.set()
        assert await asyncio.gather(*calls) == [200] * len(sizes)
        sent = [[len(post.body["input"][0]) for post in server.posts] for server in servers]
        assert [sum(lengths) for lengths in sent] == [100, 80, 75]
        assert [endpoint.tokens for endpoint in sender.endpoints.all] == [0, 0, 0]
        await sender.close()


async def test_idle_urls_share_calls_of_one_size_equally() -> None:
    async with EngineServer(vllm).listening() as first, EngineServer(vllm).listening() as second:
        sender = transport(first.url, second.url)
        for _ in range(10):
            await sender.call(call_of([1]), read_status)
        assert (len(first.posts), len(second.posts)) == (5, 5)
        await sender.close()


async def test_url_that_is_overloaded_is_left_for_others_until_its_retry_after() -> None:
    clock, headers = ManualClock(), {"retry-after": "30"}
    async with (
        EngineServer(vllm, status=429, headers=headers).listening() as busy,
        EngineServer(vllm).listening() as idle,
    ):
        sender = transport(busy.url, idle.url, clock=clock)
        for _ in range(10):
            assert await sender.call(call_of([1]), read_status) == 200
        assert (len(busy.posts), len(idle.posts)) == (1, 10)
        clock.now += 31.0
        assert await sender.call(call_of([1]), read_status) == 200
        assert len(busy.posts) == 2
        await sender.close()


async def test_connections_are_kept_alive() -> None:
    async with EngineServer(vllm).listening() as server:
        sender = transport(server.url)
        for _ in range(5):
            await sender.call(call_of([1]), read_status)
        assert len({request.client for request in server.posts}) == 1
        await sender.close()


async def test_cookies_are_not_kept() -> None:
    async with EngineServer(vllm, headers={"set-cookie": "sticky=a; Path=/"}).listening() as server:
        sender = transport(server.url)
        for _ in range(2):
            await sender.call(call_of([1]), read_status)
        assert "cookie" not in server.posts[-1].headers
        await sender.close()


async def test_reply_that_cannot_be_read_is_asked_for_once_at_another_url() -> None:
    async with EngineServer(vllm).listening() as first, EngineServer(vllm).listening() as second:
        sender = transport(first.url, second.url)

        def read(reply: Reply) -> int:
            raise bad_reply("for a test")

        with pytest.raises(EngineError) as raised:
            await sender.call(call_of([1]), read)
        assert raised.value.code == "engine_bad_reply"
        assert (len(first.posts), len(second.posts)) == (1, 1)
        await sender.close()


async def test_redirect_is_not_followed() -> None:
    async with EngineServer(vllm).listening() as target:
        headers = {"location": target.url + "/classify"}
        async with EngineServer(vllm, status=307, headers=headers).listening() as server:
            sender = transport(server.url)
            with pytest.raises(EngineError) as raised:
                await sender.call(call_of([1]), read_status)
            assert raised.value.code == "engine_bad_reply"
            assert not target.received
            await sender.close()


async def test_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{closed.getsockname()[1]}")
        async with EngineServer(vllm).listening() as server:
            sender = transport(server.url)
            assert await sender.call(call_of([1]), read_status) == 200
            await sender.close()


async def test_time_left_is_passed_on_to_another_assay() -> None:
    async with EngineServer(assay).listening() as server:
        engine = open_engine(engine_card("assay", server.url), clock=lambda: 100.0)
        deadlines.set_latest(lambda: 107.5)
        await engine.classify_texts(["a"])
        assert server.posts[0].headers["x-assay-timeout-ms"] == "7500"
        await engine.close()


async def test_engine_of_a_card_is_used_from_several_tasks_at_once() -> None:
    async with EngineServer(vllm).listening() as server:
        engine: Any = open_engine(engine_card("vllm", server.url, max_calls=2))
        rows = [[[number], [number, number]] for number in range(20)]
        replies = await asyncio.gather(*(engine.classify(part) for part in rows))
        assert replies == [raws_of(part) for part in rows]
        await engine.close()
