"""Redis killed, hung or answering garbage under requests: slower, never wrong, never down."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx2
import pytest
from conftest import RedisServer, Served, free_port
from doubles import new_metrics

from assay.cache import RedisCache
from assay.settings import Settings

ROUNDS = 12
AT_ONCE = 8


def with_redis(settings: Settings, url: str) -> Settings:
    redis = Settings(redis_url=url, redis_timeout=0.2, cache_bytes=0)
    chosen = {name: getattr(redis, name) for name in ("redis_url", "redis_timeout", "cache_bytes")}
    return settings.model_copy(update=chosen)


async def scores_hold(client: httpx2.AsyncClient, words: list[str]) -> None:
    body = {"model": "scripted", "items": [{"text": word} for word in words]}
    answer = await client.post("/v1/score", json=body)
    assert answer.status_code == 200
    assert [r["score"] for r in answer.json()["results"]] == [float(len(word)) for word in words]


async def load(client: httpx2.AsyncClient, midway: Callable[[], None]) -> None:
    """Rounds of concurrent requests, old words and new ones, with something happening midway."""
    for number in range(ROUNDS):
        if number == ROUNDS // 2:
            midway()
        await asyncio.gather(
            *(scores_hold(client, [f"w{number}", f"x{n}", "same"]) for n in range(AT_ONCE))
        )


async def test_killed(
    served: Served, scripted_settings: Settings, redis_server: RedisServer
) -> None:
    async with served(with_redis(scripted_settings, redis_server.url)) as client:
        await load(client, redis_server.kill)
    redis_server.start()


async def test_hung_and_back(
    served: Served, scripted_settings: Settings, redis_server: RedisServer
) -> None:
    assert redis_server.process is not None
    process = redis_server.process
    async with served(with_redis(scripted_settings, redis_server.url)) as client:
        await load(client, lambda: process.send_signal(signal.SIGSTOP))
        await load(client, lambda: process.send_signal(signal.SIGCONT))


GARBAGE = [
    b"$-1\r\n" * 50,
    b"*3\r\n$5\r\nhello\r\n$5\r\nhello\r\n$5\r\nhello\r\n",
    b":notanumber\r\n",
    b"$99999999999\r\nx",
    b"*999999999\r\n",
    b"+OK\r\n" * 3,
    b"-ERR no\r\n",
    b"\x00\xff\xfe rubbish \r\n\r\n",
    b"",
]


@asynccontextmanager
async def liar(answer: bytes) -> AsyncIterator[str]:
    """A server that greets a Redis client and then answers everything with the same bytes."""
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        while await reader.read(65536):
            writer.write(answer)
            if not answer:
                break
        writer.close()

    port = free_port()
    server = await asyncio.start_server(serve, "127.0.0.1", port)
    async with server:
        yield f"redis://127.0.0.1:{port}/0"
        for writer in writers:
            writer.close()


@pytest.mark.parametrize("answer", GARBAGE, ids=[repr(garbage[:12]) for garbage in GARBAGE])
async def test_answers_garbage(served: Served, scripted_settings: Settings, answer: bytes) -> None:
    async with (
        liar(answer) as url,
        served(with_redis(scripted_settings, url)) as client,
    ):
        for number in range(3):
            await asyncio.gather(*(scores_hold(client, [f"w{number}", "same"]) for _ in range(4)))


async def test_a_silent_redis_is_tried_once_and_then_left_alone() -> None:
    connections: list[asyncio.StreamWriter] = []

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        while await reader.read(65536):
            pass
        writer.close()

    port = free_port()
    server = await asyncio.start_server(swallow, "127.0.0.1", port)
    url = f"redis://127.0.0.1:{port}/0"
    async with server:
        cache = RedisCache(url, 60, 0.05, new_metrics(), clock=lambda: 0.0)
        for _ in range(50):
            assert await cache.get_many([b"key"]) == {}
            await cache.put_many({b"key": (1.0,)})
        await cache.close()
        assert len(connections) == 1
