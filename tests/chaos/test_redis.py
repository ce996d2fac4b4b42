"""Redis that refuses, hangs, is slow, corrupt, full or restarted: every score is still right."""

import asyncio
import functools
import itertools
import signal
import struct
from collections.abc import Callable, Iterator

import pytest
from redis import Redis
from support.redis_caches import as_bytes, new_redis_cache, raw_names
from support.servers import RedisServer, free_port

from assay.cache.redis_client import MAX_PAUSE_SECONDS
from assay.settings import Settings

from .devices import ManualClock, ScriptedDevice, true_score, wait_until, wait_until_async
from .redis_faults import GARBAGE, FaultyProxy, Mode, garbage_server
from .servers import Server, checked_server

pytestmark = pytest.mark.slow

ROUNDS = 12
CONCURRENCY = 8
TIMEOUT_SECONDS = 0.1
WORDS = [f"word {number}" for number in range(6)]


def with_redis(settings: Settings, url: str, **options: float) -> Settings:
    """Return settings with Redis as the only cache, so that every lookup goes to it."""
    redis = Settings(redis_url=url)
    changed = {
        "redis_url": redis.redis_url,
        "redis_timeout": TIMEOUT_SECONDS,
        "cache_bytes": 0,
        **options,
    }
    return settings.model_copy(update=changed)


async def check_scores(server: Server, words: list[str]) -> list[str]:
    """Check that the scores are right, and return their sources."""
    reply = await server.score(words)
    assert reply.scores == [true_score(word) for word in words]
    return [result["source"] for result in reply.json["results"]]


async def send_rounds(server: Server, midway: Callable[[], object] = lambda: None) -> None:
    """Send rounds of concurrent requests, of known and new words; call `midway` half way."""
    for number in range(ROUNDS):
        if number == ROUNDS // 2:
            midway()
        await asyncio.gather(
            *(check_scores(server, [f"w{number}", f"x{n}", "same"]) for n in range(CONCURRENCY))
        )


async def store(server: Server, client: Redis, words: list[str]) -> None:
    """Score words, and wait until Redis has their raws."""
    before = len(raw_names(client))
    await check_scores(server, words)
    await wait_until(lambda: len(raw_names(client)) >= before + len(words))


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[Redis]:
    client = Redis(port=redis_server.port)
    yield client
    client.close()


class TestOutages:
    async def test_a_refused_connection(
        self, scripted_settings: Settings, device: ScriptedDevice
    ) -> None:
        url = f"redis://127.0.0.1:{free_port()}/0"
        async with checked_server(with_redis(scripted_settings, url)) as server:
            await send_rounds(server)

    async def test_a_killed_redis_is_used_again_after_its_restart(
        self, scripted_settings: Settings, device: ScriptedDevice, redis_server: RedisServer
    ) -> None:
        settings = with_redis(scripted_settings, redis_server.url, redis_timeout=0.02)
        async with checked_server(settings) as server:
            await send_rounds(server, redis_server.kill)
            await send_rounds(server, redis_server.start)

            async def in_use() -> bool:
                return await check_scores(server, ["back again"]) == ["cache"]

            await wait_until_async(in_use)

    async def test_a_redis_that_hangs_and_continues(
        self, scripted_settings: Settings, device: ScriptedDevice, redis_server: RedisServer
    ) -> None:
        assert redis_server.process is not None
        process = redis_server.process
        async with checked_server(with_redis(scripted_settings, redis_server.url)) as server:
            await send_rounds(server, lambda: process.send_signal(signal.SIGSTOP))
            await send_rounds(server, lambda: process.send_signal(signal.SIGCONT))

    async def test_a_redis_that_is_emptied(
        self,
        scripted_settings: Settings,
        device: ScriptedDevice,
        redis_server: RedisServer,
        client: Redis,
    ) -> None:
        async with checked_server(with_redis(scripted_settings, redis_server.url)) as server:
            await send_rounds(server, lambda: client.flushall())


def full(client: Redis) -> None:
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("maxmemory", 1)


def read_only(client: Redis) -> None:
    client.replicaof("127.0.0.1", free_port())


def masterless(client: Redis) -> None:
    client.config_set("replica-serve-stale-data", "no")
    client.replicaof("127.0.0.1", free_port())


def locked(client: Redis) -> None:
    client.config_set("requirepass", "another")
    client.execute_command("AUTH", "another")  # type: ignore[no-untyped-call]
    client.client_kill_filter(_type="normal", skipme=True)


def without_connections(client: Redis) -> None:
    client.config_set("maxclients", 1)
    client.client_kill_filter(_type="normal", skipme=True)


class TestRefusals:
    @pytest.mark.parametrize("refusing", [full, read_only, masterless, locked, without_connections])
    async def test_commands_that_redis_refuses(
        self,
        scripted_settings: Settings,
        device: ScriptedDevice,
        redis_server: RedisServer,
        client: Redis,
        refusing: Callable[[Redis], None],
    ) -> None:
        async with checked_server(with_redis(scripted_settings, redis_server.url)) as server:
            await store(server, client, WORDS)
            await send_rounds(server, lambda: refusing(client))
            await check_scores(server, WORDS)


def flip_bit(value: bytes, position: int) -> bytes:
    return value[:position] + bytes([value[position] ^ 0x40]) + value[position + 1 :]


def nan_of(value: bytes) -> bytes:
    return value[:8] + struct.pack(">d", float("nan"))


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    **{f"byte {n} flipped": functools.partial(flip_bit, position=n) for n in range(16)},
    "cut short": lambda value: value[:-1],
    "without its number": lambda value: value[:8],
    "longer": lambda value: value + value[8:],
    "twice": lambda value: value + value,
    "nothing": lambda value: b"",
    "NaN": nan_of,
    "a number as text": lambda value: b"1.0",
    "a large one": lambda value: value * 10_000,
}


class TestCorruption:
    @pytest.mark.parametrize("damage", DAMAGES)
    async def test_a_damaged_value_is_a_miss_and_is_replaced(
        self,
        scripted_settings: Settings,
        device: ScriptedDevice,
        redis_server: RedisServer,
        client: Redis,
        damage: str,
    ) -> None:
        async with checked_server(with_redis(scripted_settings, redis_server.url)) as server:
            await store(server, client, ["word"])
            (name,) = raw_names(client)
            intact = as_bytes(client.get(name))
            client.set(name, DAMAGES[damage](intact))
            assert await check_scores(server, ["word"]) == ["computed"]
            await wait_until(lambda: client.get(name) == intact)
            assert await check_scores(server, ["word"]) == ["cache"]
            assert device.rows["word"] == 2

    async def test_values_of_other_keys_are_misses(
        self,
        scripted_settings: Settings,
        device: ScriptedDevice,
        redis_server: RedisServer,
        client: Redis,
    ) -> None:
        async with checked_server(with_redis(scripted_settings, redis_server.url)) as server:
            await store(server, client, WORDS)
            names = sorted(raw_names(client))
            values = [as_bytes(value) for value in client.mget(names)]
            client.mset(dict(zip(names, values[1:] + values[:1], strict=True)))
            assert await check_scores(server, WORDS) == ["computed"] * len(WORDS)

    async def test_keys_of_another_type_are_misses(
        self,
        scripted_settings: Settings,
        device: ScriptedDevice,
        redis_server: RedisServer,
        client: Redis,
    ) -> None:
        async with checked_server(with_redis(scripted_settings, redis_server.url)) as server:
            await store(server, client, WORDS)
            for name in raw_names(client):
                client.delete(name)
                client.rpush(name, "a", "list")
            assert await check_scores(server, WORDS) == ["computed"] * len(WORDS)

    async def test_a_damaged_value_does_not_affect_its_neighbours(
        self,
        scripted_settings: Settings,
        device: ScriptedDevice,
        redis_server: RedisServer,
        client: Redis,
    ) -> None:
        async with checked_server(with_redis(scripted_settings, redis_server.url)) as server:
            await store(server, client, WORDS)
            client.set(raw_names(client)[0], b"rubbish")
            assert sorted(await check_scores(server, WORDS)) == ["cache"] * 5 + ["computed"]


class TestBadConnections:
    @pytest.mark.parametrize("mode", ["hung", "cut", "late"])
    async def test_replies_that_are_missing_cut_or_late(
        self,
        scripted_settings: Settings,
        device: ScriptedDevice,
        redis_server: RedisServer,
        client: Redis,
        mode: Mode,
    ) -> None:
        proxy = FaultyProxy(redis_server.port)
        async with (
            proxy.listening() as url,
            checked_server(with_redis(scripted_settings, url, redis_wait=10.0)) as server,
        ):
            await store(server, client, WORDS)
            assert await check_scores(server, WORDS) == ["cache"] * len(WORDS)
            proxy.mode = mode
            before = proxy.lookups
            for number in range(100):
                await check_scores(server, [WORDS[number % 6], f"new {number}"])
            assert proxy.lookups - before < 20, "pauses between tries become longer"

    async def test_concurrent_requests_wait_for_a_hung_redis_once(
        self, scripted_settings: Settings, device: ScriptedDevice, redis_server: RedisServer
    ) -> None:
        proxy = FaultyProxy(redis_server.port)
        proxy.mode = "hung"
        async with (
            proxy.listening() as url,
            checked_server(with_redis(scripted_settings, url, redis_timeout=0.5)) as server,
        ):
            await asyncio.gather(*(check_scores(server, [f"text {n}"]) for n in range(30)))
            known = proxy.connections
            await asyncio.gather(*(check_scores(server, [f"text {n}"]) for n in range(30)))
            assert proxy.connections == known, "the second round of requests does not try Redis"

    async def test_pauses_grow_to_half_a_minute_and_end_with_the_outage(
        self, redis_server: RedisServer
    ) -> None:
        proxy, clock, key = FaultyProxy(redis_server.port), ManualClock(), b"k" * 32
        async with proxy.listening() as url:
            cache = new_redis_cache(url, timeout=0.02, clock=clock)
            await cache.put_many({key: (1.0,)})

            async def is_stored() -> bool:
                return bool(await cache.get_many([key]))

            await wait_until_async(is_stored)
            proxy.mode = "hung"
            known, tries = proxy.connections, []
            for second in range(600):
                clock.now += 1
                assert await cache.get_many([key]) in ({}, {key: (1.0,)})
                if proxy.connections > known:
                    known = proxy.connections
                    tries.append(second)
            pauses = [after - before for before, after in itertools.pairwise(tries)]
            assert pauses == sorted(pauses), "each pause is at least as long as the one before"
            assert pauses[-5:] == [MAX_PAUSE_SECONDS] * 5
            proxy.mode = "transparent"
            clock.now += MAX_PAUSE_SECONDS
            assert await cache.get_many([key]) == {key: (1.0,)}
            assert await cache.get_many([key]) == {key: (1.0,)}, "the pause is over"
            await cache.close()


@pytest.mark.parametrize("reply", GARBAGE, ids=[repr(garbage[:12]) for garbage in GARBAGE])
async def test_a_server_that_is_not_redis(
    scripted_settings: Settings, device: ScriptedDevice, reply: bytes
) -> None:
    async with (
        garbage_server(reply) as url,
        checked_server(with_redis(scripted_settings, url, redis_wait=10.0)) as server,
    ):
        for number in range(3):
            await asyncio.gather(*(check_scores(server, [f"w{number}", "same"]) for _ in range(4)))
