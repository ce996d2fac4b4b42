"""Several servers: who is asked next, who rests, and what a call does when one is gone."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from assay_client import APIConnectionError, AsyncClient, Client, NotReadyError
from assay_client._transport.endpoints import Endpoints

ITEMS = [{"value": 1.0}]


def _count(*servers: Any) -> list[int]:
    return [len(server.seen) for server in servers]


def test_calls_are_spread(start: Any, connect: Any) -> None:
    first, second, third = start(), start(), start()
    client = connect([first.url, second.url, third.url])
    for _ in range(9):
        client.score("code", ITEMS)
    assert _count(first, second, third) == [3, 3, 3]


def test_many_clients_do_not_all_begin_with_the_first(
    start: Any, connect: Any, fake_time: Any
) -> None:
    servers = [start(), start()]
    for chance in (0.0, 0.49, 0.5, 0.99):
        fake_time.chance = chance
        connect([server.url for server in servers], clock=fake_time.clock).score("code", ITEMS)
    assert _count(*servers) == [2, 2]


def test_a_refused_connection_goes_to_the_next_server_at_once(
    server: Any, connect: Any, refused_url: str, fake_time: Any
) -> None:
    fake_time.chance = 0.0
    client = connect(f"{refused_url},{server.url}", clock=fake_time.clock)
    assert client.score("code", ITEMS).scores == [1.0]
    assert fake_time.waits == []


def test_so_does_a_server_that_is_not_ready(
    start: Any, connect: Any, say: Any, fake_time: Any
) -> None:
    fake_time.chance = 0.0
    first, second = start(), start()
    first.always = say.problem(503, retry_after="30")
    client = connect([first.url, second.url], clock=fake_time.clock)
    assert [client.score("code", ITEMS).scores for _ in range(4)] == [[1.0]] * 4
    assert fake_time.waits == []
    assert _count(first, second) == [1, 4]


def test_a_server_that_failed_rests_and_is_asked_again_later(
    start: Any, connect: Any, say: Any, fake_time: Any
) -> None:
    fake_time.chance = 0.0
    first, second = start(), start()
    client = connect([first.url, second.url], clock=fake_time.clock)
    first.script.extend([say.problem(503), say.problem(503)])
    client.score("code", ITEMS)
    assert _count(first, second) == [1, 1]
    client.score("code", ITEMS)
    assert _count(first, second) == [1, 2]  # it rests
    fake_time.now += 0.6
    client.score("code", ITEMS)
    assert _count(first, second) == [2, 3]  # asked again, and still not well
    fake_time.now += 0.6
    client.score("code", ITEMS)
    assert _count(first, second) == [2, 4]  # so it rests longer
    fake_time.now += 0.6
    client.score("code", ITEMS)
    client.score("code", ITEMS)
    assert _count(first, second) == [3, 5]  # well again


def test_a_server_back_from_rest_gets_one_request_to_prove_itself(fake_time: Any) -> None:
    fake_time.chance = 0.0
    endpoints = Endpoints(["a", "b"], fake_time.clock)
    fallen = endpoints.acquire(())
    endpoints.failed(fallen, None)
    endpoints.release(fallen)
    fake_time.now += 0.6
    assert endpoints.acquire(()).url == "b"
    assert [endpoints.acquire(()).url for _ in range(3)] == ["a", "b", "b"]
    endpoints.succeeded(fallen)
    assert endpoints.acquire(()).url == "a"


def test_a_server_that_came_back_begins_with_the_short_rest(fake_time: Any) -> None:
    endpoints = Endpoints(["a"], fake_time.clock)
    fallen = endpoints.acquire(())
    for _ in range(8):
        endpoints.failed(fallen, None)
    assert fallen.rests_until - fake_time.now == 30.0
    endpoints.succeeded(fallen)
    endpoints.failed(fallen, None)
    assert fallen.rests_until - fake_time.now == 0.5


def test_where_all_rest_a_call_still_tries(connect: Any, refused_url: str, fake_time: Any) -> None:
    client = connect([refused_url, f"{refused_url}/b"], clock=fake_time.clock, max_retries=3)
    with pytest.raises(APIConnectionError):
        client.score("code", ITEMS)
    assert len(fake_time.waits) == 2  # the step to the other server needs none
    with pytest.raises(APIConnectionError):
        client.score("code", ITEMS)


def test_a_refusal_that_is_final_is_not_carried_to_the_next_server(
    start: Any, connect: Any, say: Any, fake_time: Any
) -> None:
    fake_time.chance = 0.0
    first, second = start(), start()
    first.always = say.problem(503, "model_failed", retryable=False)
    with pytest.raises(NotReadyError):
        connect([first.url, second.url], clock=fake_time.clock).score("code", ITEMS)
    assert _count(first, second) == [1, 0]


def test_the_least_busy_server_is_next(start: Any, say: Any, fake_time: Any) -> None:
    fake_time.chance = 0.0
    busy, idle = start(), start()
    go = threading.Event()

    def late(seen: Any) -> Any:
        go.wait(30)
        return say.json(say.score_reply(seen.body["items"]))

    busy.script.append(late)
    urls = [busy.url, idle.url]
    with Client(urls, clock=fake_time.clock) as client, ThreadPoolExecutor(1) as pool:
        held = pool.submit(client.score, "code", ITEMS)
        assert busy.arrived.wait(30)
        for _ in range(3):
            client.score("code", ITEMS)
        assert _count(busy, idle) == [1, 3]
        go.set()
        assert held.result(30).scores == [1.0]


async def test_a_cancelled_call_gives_its_place_back(start: Any, say: Any, fake_time: Any) -> None:
    fake_time.chance = 0.0
    first, second = start(), start()
    first.script.append(say.answer(hang=True))
    async with AsyncClient([first.url, second.url], clock=fake_time.clock) as client:
        call = asyncio.create_task(client.score("code", ITEMS))
        assert await asyncio.to_thread(first.arrived.wait, 30)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await client.score("code", ITEMS)
        await client.score("code", ITEMS)
    assert _count(first, second) == [2, 1]


async def test_calls_at_the_same_time_each_get_their_own_reply(server: Any) -> None:
    async with AsyncClient(server.url) as client:
        calls = [client.score_one("code", {"value": float(i)}) for i in range(64)]
        assert await asyncio.gather(*calls) == [float(i) for i in range(64)]


def test_threads_may_share_a_client(server: Any) -> None:
    with Client(server.url) as client, ThreadPoolExecutor(8) as pool:
        values = [float(i) for i in range(64)]
        scores = pool.map(lambda value: client.score_one("code", {"value": value}), values)
        assert list(scores) == values
