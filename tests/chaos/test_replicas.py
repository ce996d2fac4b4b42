"""Two replicas over one Redis: identical items are computed once, and every score is right."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from support.servers import RedisServer

from assay.settings import Settings

from .devices import ScriptedDevice, true_score, wait_until
from .servers import Server, checked_server

pytestmark = pytest.mark.slow

WORDS = [f"word {number}" for number in range(64)]


@asynccontextmanager
async def two_replicas(
    settings: Settings, redis: RedisServer, **options: float
) -> AsyncIterator[tuple[Server, Server]]:
    """Run two servers over one Redis."""
    changed = {"redis_url": redis.url, "redis_timeout": 5.0, **options}
    shared = Settings.model_validate({**settings.model_dump(), **changed})
    async with checked_server(shared) as first, checked_server(shared) as second:
        yield first, second


async def test_64_identical_items_asked_of_both_replicas_at_once_are_computed_once(
    scripted_settings: Settings, device: ScriptedDevice, redis_server: RedisServer
) -> None:
    """One of them claims each key, which is atomic with the lookup of its raw, and its lock ends
    only after the raw is stored. So the bound is one forward pass of each item as long as Redis
    replies in time and keeps what it stores; otherwise it is one for each replica."""
    async with two_replicas(scripted_settings, redis_server) as (first, second):
        device.hold()
        requests = [
            asyncio.create_task(server.score(WORDS[n::4]))
            for server in (first, second)
            for n in range(4)
        ]
        await wait_until(
            lambda: (
                sum(
                    server.metric("assay_shared_flights_total", outcome=outcome)
                    for server in (first, second)
                    for outcome in ("won", "lost")
                )
                == 2 * len(WORDS)
            )
        )
        device.release()
        replies = await asyncio.gather(*requests)
    for n, reply in enumerate(replies):
        assert reply.scores == [true_score(word) for word in WORDS[n % 4 :: 4]]
    assert {device.rows[word] for word in WORDS} == {1}
