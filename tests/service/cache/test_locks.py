"""Locks in a real Redis: what a claim, a release and a read do there, also when it is tampered."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from redis import Redis
from support.doubles import new_metrics
from support.paths import ROOT
from support.redis_caches import new_client
from support.servers import RedisServer

from assay.cache.balances import RedisBalances
from assay.cache.keys import cache_key
from assay.cache.locks import ALIVE_SECONDS, LOCKS, REPLICAS, KeyState, RedisLocks
from assay.cache.redis import RedisCache
from assay.cache.redis_client import RedisClient
from assay.types import Caller, Share

KEYS = [cache_key("f", str(number).encode()) for number in range(4)]
FREE = KeyState(None, None)
SECRET = b"of all servers of a Redis"


@asynccontextmanager
async def locks_of(
    url: str, secret: bytes = b"", seconds: float = 60.0
) -> AsyncIterator[tuple[RedisLocks, RedisCache]]:
    client = new_client(url, secret=secret)
    cache = RedisCache(client, ttl=60, metrics=new_metrics())
    yield RedisLocks(client, cache, seconds=seconds), cache
    await client.close()


async def store(cache: RedisCache, key: bytes, number: float) -> None:
    await cache.put_many({key: (number,)})
    await asyncio.wait(cache.client.pending)


@pytest.fixture
def redis(redis_server: RedisServer) -> Iterator[Redis]:
    with Redis(port=redis_server.port) as client:
        yield client


async def test_a_claim_locks_what_has_neither_a_raw_nor_a_lock(redis_server: RedisServer) -> None:
    url = redis_server.url
    async with locks_of(url) as (first, cache), locks_of(url) as (second, _):
        await store(cache, KEYS[0], 0.5)
        mine, others = KeyState(None, first.token), KeyState(None, second.token)
        assert await first.claim(KEYS[:2]) == [KeyState((0.5,), None), mine]
        assert await second.claim(KEYS[:3]) == [KeyState((0.5,), None), mine, others]
        assert await first.claim(KEYS[1:3]) == [mine, others]
        assert await first.read(KEYS, [second.token, b"n" * 16]) == (
            [KeyState((0.5,), None), mine, others, FREE],
            {second.token},
        )


async def test_a_release_ends_no_lock_of_another_replica(redis_server: RedisServer) -> None:
    url = redis_server.url
    async with locks_of(url) as (first, _), locks_of(url) as (second, _):
        await first.claim(KEYS[:1])
        await second.claim(KEYS[1:2])
        await second.release(KEYS)
        assert await first.claim(KEYS[:1]) == [KeyState(None, first.token)]
        read = await first.read(KEYS[:2], [])
        assert read == ([KeyState(None, first.token), FREE], set())


async def test_a_scripts_text_is_sent_once_and_again_when_redis_has_forgotten_it(
    redis_server: RedisServer, redis: Redis
) -> None:
    def calls() -> list[int]:
        stats = redis.info("commandstats")
        names = ("cmdstat_evalsha", "cmdstat_eval")
        return [stats.get(name, {"calls": 0})["calls"] for name in names]

    redis.script_flush()
    redis.config_resetstat()
    async with locks_of(redis_server.url) as (locks, _):
        for key in KEYS[:3]:
            assert await locks.claim([key]) == [KeyState(None, locks.token)]
        assert calls() == [4, 0], "the first one did not know the text"
        redis.script_flush()
        assert await locks.claim(KEYS[3:]) == [KeyState(None, locks.token)]
        assert calls() == [6, 0]


async def test_locks_and_replicas_end_by_themselves(
    redis_server: RedisServer, redis: Redis
) -> None:
    async with locks_of(redis_server.url) as (locks, _):
        await locks.claim(KEYS[:1])
        assert 0 < redis.pttl(LOCKS + KEYS[0]) <= 60_000
        assert 0 < redis.pttl(REPLICAS + locks.token) <= 1000 * ALIVE_SECONDS
        redis.delete(REPLICAS + locks.token)
        await locks.renew()
        assert 0 < redis.pttl(REPLICAS + locks.token) <= 1000 * ALIVE_SECONDS


async def test_with_a_secret_only_its_holders_find_and_write_locks(
    redis_server: RedisServer, redis: Redis
) -> None:
    url = redis_server.url
    async with locks_of(url, SECRET) as (locks, _), locks_of(url) as (stranger, _):
        await locks.claim(KEYS[:1])
        names = [name for name in redis.keys("*") if KEYS[0] in name or locks.token in name]
        assert names == []
        (name,) = redis.keys(LOCKS + b"*")
        await stranger.claim(KEYS[:1])
        redis.set(name, redis.get(LOCKS + KEYS[0]) or b"")
        assert await locks.read(KEYS[:1], []) == ([FREE], set())


@pytest.mark.parametrize("value", [b"", b"x" * 24, b"x" * 16, b"\x00" * 1000])
async def test_a_value_that_is_no_lock_does_not_count(
    redis_server: RedisServer, redis: Redis, value: bytes
) -> None:
    redis.set(LOCKS + KEYS[0], value)
    async with locks_of(redis_server.url) as (locks, _):
        assert await locks.claim(KEYS[:2]) == [FREE, KeyState(None, locks.token)]
        await locks.release(KEYS)
    assert redis.get(LOCKS + KEYS[0]) == value


async def test_values_of_another_type_do_not_affect_other_keys(
    redis_server: RedisServer, redis: Redis
) -> None:
    redis.rpush(LOCKS + KEYS[0], "a")
    async with locks_of(redis_server.url) as (locks, cache):
        redis.rpush(cache.name(KEYS[1]), "a")
        mine = KeyState(None, locks.token)
        assert await locks.claim(KEYS[:3]) == [FREE, mine, mine]
        await locks.release(KEYS)
        assert await locks.read(KEYS[:3], []) == ([FREE] * 3, set())


async def test_without_redis_there_is_no_claim_and_nothing_raises(
    redis_server: RedisServer,
) -> None:
    async with locks_of(redis_server.url) as (locks, _):
        redis_server.kill()
        assert await locks.claim(KEYS) is None
        assert await locks.read(KEYS, []) is None
        await locks.release(KEYS)
        await locks.renew()
    redis_server.start()


async def test_the_rights_that_the_page_names_suffice_and_without_them_scores_are_shared(
    redis_server: RedisServer, redis: Redis
) -> None:
    page = (ROOT / "docs" / "how-to" / "deploy.md").read_text()
    stated = re.search(r"`(~assay:\*[^`]*)`", page)
    assert stated is not None
    rights = stated[1].split()
    for name, given in (("full", rights), ("least", ["~assay:*", "+mget", "+set"])):
        rules = ["ACL", "SETUSER", name, "on", ">right", *given]
        redis.execute_command(*rules)  # type: ignore[no-untyped-call]
    for name, works in (("full", True), ("least", False)):
        url = redis_server.url.replace("//", f"//{name}:right@")
        async with locks_of(url) as (locks, cache):
            client: RedisClient = cache.client
            balances = RedisBalances(client)
            caller = Caller(name, share=Share(1.0, 1))
            await store(cache, KEYS[0], 0.5)
            assert await cache.get_many(KEYS) == {KEYS[0]: (0.5,)}
            assert (await locks.claim(KEYS[1:2]) is not None) is works
            await locks.release(KEYS[1:2])
            standing, lease = await balances.admit(caller, 10.0)
            assert (standing is not None) is works
            balances._renew()
            balances.charge(caller, 10.0, 1)
            balances.release(caller, lease)
            balances.close()
            await asyncio.wait(client.pending)
            assert (client.state.state == "working") is works, client.state.state
            assert await cache.get_many(KEYS) == {KEYS[0]: (0.5,)}
