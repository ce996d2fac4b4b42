"""Several servers: load balancing, cooldown after failures, and failover of a call."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from assay_client import APIConnectionError, AsyncClient, Client, NotReadyError
from assay_client._transport.endpoints import Endpoints

ITEMS = [{"value": 1.0}]


def _count(*servers: Any) -> list[int]:
    return [len(server.received) for server in servers]


def test_calls_are_spread_over_the_servers(start_server: Any, connect: Any) -> None:
    first, second, third = start_server(), start_server(), start_server()
    client = connect([first.url, second.url, third.url])
    for _ in range(9):
        client.score("code", ITEMS)
    assert _count(first, second, third) == [3, 3, 3]


def test_clients_begin_with_different_servers(
    start_server: Any, connect: Any, fake_clock: Any
) -> None:
    servers = [start_server(), start_server()]
    for chance in (0.0, 0.49, 0.5, 0.99):
        fake_clock.chance = chance
        connect([server.url for server in servers], clock=fake_clock.clock).score("code", ITEMS)
    assert _count(*servers) == [2, 2]


def test_a_refused_connection_fails_over_without_a_wait(
    server: Any, connect: Any, refused_url: str, fake_clock: Any
) -> None:
    fake_clock.chance = 0.0
    client = connect(f"{refused_url},{server.url}", clock=fake_clock.clock)
    assert client.score("code", ITEMS).scores == [1.0]
    assert fake_clock.waits == []


def test_a_server_that_is_not_ready_fails_over_without_a_wait(
    start_server: Any, connect: Any, canned: Any, fake_clock: Any
) -> None:
    fake_clock.chance = 0.0
    first, second = start_server(), start_server()
    first.always = canned.problem(503, retry_after="30")
    client = connect([first.url, second.url], clock=fake_clock.clock)
    assert [client.score("code", ITEMS).scores for _ in range(4)] == [[1.0]] * 4
    assert fake_clock.waits == []
    assert _count(first, second) == [1, 4]


def test_a_failed_server_is_avoided_longer_with_each_failure_in_a_row(
    start_server: Any, connect: Any, canned: Any, fake_clock: Any
) -> None:
    fake_clock.chance = 0.0
    first, second = start_server(), start_server()
    client = connect([first.url, second.url], clock=fake_clock.clock)
    first.script.extend([canned.problem(503), canned.problem(503)])
    client.score("code", ITEMS)
    assert _count(first, second) == [1, 1]
    client.score("code", ITEMS)
    assert _count(first, second) == [1, 2]  # in cooldown
    fake_clock.now += 0.6
    client.score("code", ITEMS)
    assert _count(first, second) == [2, 3]  # tried again, and still unavailable
    fake_clock.now += 0.6
    client.score("code", ITEMS)
    assert _count(first, second) == [2, 4]  # so its cooldown is longer
    fake_clock.now += 0.6
    client.score("code", ITEMS)
    client.score("code", ITEMS)
    assert _count(first, second) == [3, 5]  # available again


def test_a_server_after_its_cooldown_gets_a_single_probe(fake_clock: Any) -> None:
    fake_clock.chance = 0.0
    endpoints = Endpoints(["a", "b"], fake_clock.clock)
    failed = endpoints.acquire(())
    endpoints.failed(failed, None)
    endpoints.release(failed)
    fake_clock.now += 0.6
    assert endpoints.acquire(()).url == "b"
    assert [endpoints.acquire(()).url for _ in range(3)] == ["a", "b", "b"]
    endpoints.succeeded(failed)
    assert endpoints.acquire(()).url == "a"


def test_a_success_resets_the_cooldown(fake_clock: Any) -> None:
    endpoints = Endpoints(["a"], fake_clock.clock)
    failed = endpoints.acquire(())
    for _ in range(8):
        endpoints.failed(failed, None)
    assert failed.cooldown_until - fake_clock.now == 30.0
    endpoints.succeeded(failed)
    endpoints.failed(failed, None)
    assert failed.cooldown_until - fake_clock.now == 0.5


def test_a_call_is_tried_while_all_servers_are_in_cooldown(
    connect: Any, refused_url: str, fake_clock: Any
) -> None:
    client = connect([refused_url, f"{refused_url}/b"], clock=fake_clock.clock, max_retries=3)
    with pytest.raises(APIConnectionError):
        client.score("code", ITEMS)
    assert len(fake_clock.waits) == 2  # switching to the other server needs none
    with pytest.raises(APIConnectionError):
        client.score("code", ITEMS)


def test_a_final_refusal_is_not_sent_to_the_next_server(
    start_server: Any, connect: Any, canned: Any, fake_clock: Any
) -> None:
    fake_clock.chance = 0.0
    first, second = start_server(), start_server()
    first.always = canned.problem(503, "model_failed", retryable=False)
    with pytest.raises(NotReadyError):
        connect([first.url, second.url], clock=fake_clock.clock).score("code", ITEMS)
    assert _count(first, second) == [1, 0]


def test_the_least_busy_server_is_next(start_server: Any, canned: Any, fake_clock: Any) -> None:
    fake_clock.chance = 0.0
    busy, idle = start_server(), start_server()
    go = threading.Event()

    def late(received: Any) -> Any:
        go.wait(30)
        return canned.json(canned.score_reply(received.body["items"]))

    busy.script.append(late)
    urls = [busy.url, idle.url]
    with Client(urls, clock=fake_clock.clock) as client, ThreadPoolExecutor(1) as pool:
        held = pool.submit(client.score, "code", ITEMS)
        assert busy.arrived.wait(30)
        for _ in range(3):
            client.score("code", ITEMS)
        assert _count(busy, idle) == [1, 3]
        go.set()
        assert held.result(30).scores == [1.0]


async def test_a_cancelled_call_releases_its_server(
    start_server: Any, canned: Any, fake_clock: Any
) -> None:
    fake_clock.chance = 0.0
    first, second = start_server(), start_server()
    first.script.append(canned.answer(hang=True))
    async with AsyncClient([first.url, second.url], clock=fake_clock.clock) as client:
        call = asyncio.create_task(client.score("code", ITEMS))
        assert await asyncio.to_thread(first.arrived.wait, 30)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await client.score("code", ITEMS)
        await client.score("code", ITEMS)
    assert _count(first, second) == [2, 1]


async def test_concurrent_calls_get_their_own_replies(server: Any) -> None:
    async with AsyncClient(server.url) as client:
        calls = [client.score_one("code", {"value": float(i)}) for i in range(64)]
        assert await asyncio.gather(*calls) == [float(i) for i in range(64)]


def test_threads_may_share_a_client(server: Any) -> None:
    with Client(server.url) as client, ThreadPoolExecutor(8) as pool:
        values = [float(i) for i in range(64)]
        scores = pool.map(lambda value: client.score_one("code", {"value": value}), values)
        assert list(scores) == values
