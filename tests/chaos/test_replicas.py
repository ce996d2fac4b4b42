"""Two replicas over one Redis: identical items are computed once, and every score is right."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from redis import Redis
from support.redis_caches import new_locks, raw_names
from support.servers import RedisServer
from support.tiers import only_nightly

from assay.cache.locks import LOCKS, REPLICAS, RedisLocks
from assay.cache.redis_client import PREFIX
from assay.settings import Settings

from .devices import ScriptedDevice, true_score, wait_until, wait_until_async
from .processes import DeviceGate, Process, serving
from .servers import Reply, Server, all_scored, checked_server

pytestmark = [pytest.mark.slow, only_nightly]

WORDS = [f"word {number}" for number in range(64)]
WON = b'assay_shared_flights_total{outcome="won"} 1.0'
LOST = b'assay_shared_flights_total{outcome="lost"} 1.0'


@asynccontextmanager
async def two_replicas(
    settings: Settings, redis: RedisServer, **options: float
) -> AsyncIterator[tuple[Server, Server]]:
    """Run two servers over one Redis, without caches of their own."""
    own = {"redis_timeout": 1.0, "redis_wait": 10.0, "cache_bytes": 0}
    changed = {"redis_url": redis.url, **own, **options}
    shared = Settings.model_validate({**settings.model_dump(), **changed})
    async with checked_server(shared) as first, checked_server(shared) as second:
        yield first, second


def flights(server: Server, outcome: str) -> float:
    return server.metric("assay_shared_flights_total", outcome=outcome)


@asynccontextmanager
async def one_computes_and_one_waits(
    replicas: tuple[Server, Server], device: ScriptedDevice, text: str, *headers: str
) -> AsyncIterator[tuple[asyncio.Task[Reply], asyncio.Task[Reply]]]:
    """Ask the first replica, whose device is held, and the second, which waits for it."""
    first, second = replicas
    device.hold()
    computing = asyncio.create_task(first.score([text]))
    await wait_until(lambda: first.queued_tokens > 0)
    waiting = asyncio.create_task(second.score([text], *headers))
    await wait_until(lambda: flights(second, "lost") == 1)
    yield computing, waiting
    device.release()


async def test_64_identical_items_asked_of_both_replicas_at_once_are_computed_once(
    scripted_settings: Settings, device: ScriptedDevice, redis_server: RedisServer
) -> None:
    """Check the bound: one forward pass of an item at both replicas together, without a race.

    A claim reads a raw and takes its lock in one script, which Redis runs atomically, and a lock
    is released after its raw is stored. So a key that no replica has a raw of is locked, and a
    replica whose claim comes too late finds the raw. Where Redis does not reply in time, or drops
    what it stores, the bound is one forward pass at each replica. (Within one replica a request
    stores its raws when all of them are computed; a later request may compute one again before.)
    """
    async with two_replicas(scripted_settings, redis_server) as servers:
        device.hold()
        parts = [(server, WORDS[n::4]) for server in servers for n in range(4)]
        requests = [asyncio.create_task(server.score(words)) for server, words in parts]
        await wait_until(
            lambda: sum(flights(s, name) for s in servers for name in ("won", "lost")) == 128
        )
        device.release()
        replies = await asyncio.gather(*requests)
        assert sum(flights(server, "won") for server in servers) == 64
        assert sum(flights(server, "received") for server in servers) == 64
    for (_, words), reply in zip(parts, replies, strict=True):
        assert reply.scores == [true_score(word) for word in words]
    assert {device.rows[word] for word in WORDS} == {1}


async def test_a_waiting_replica_gets_the_raw_and_says_that_it_is_shared(
    scripted_settings: Settings, device: ScriptedDevice, redis_server: RedisServer
) -> None:
    async with (
        two_replicas(scripted_settings, redis_server) as replicas,
        one_computes_and_one_waits(replicas, device, "word") as requests,
    ):
        device.release()
        replies = await asyncio.gather(*requests)
    sources = [reply.json["results"][0]["source"] for reply in replies]
    assert sources == ["computed", "shared"]
    assert [reply.scores for reply in replies] == [[true_score("word")]] * 2
    assert device.rows["word"] == 1


def stop(server: RedisServer) -> None:
    assert server.process is not None
    server.process.send_signal(signal.SIGSTOP)


def flush(server: RedisServer) -> None:
    with Redis(port=server.port) as client:
        client.flushall()


def restart(server: RedisServer) -> None:
    server.kill()
    server.start()


@pytest.mark.parametrize("fault", [stop, RedisServer.kill, restart, flush])
async def test_a_replica_that_waits_computes_when_redis_fails(
    scripted_settings: Settings,
    device: ScriptedDevice,
    redis_server: RedisServer,
    fault: Callable[[RedisServer], None],
) -> None:
    async with two_replicas(scripted_settings, redis_server, redis_timeout=0.3) as replicas:
        async with one_computes_and_one_waits(replicas, device, "word") as requests:
            fault(redis_server)
            await wait_until(lambda: replicas[1].queued_tokens > 0)
            device.release()
            replies = await asyncio.gather(*requests)
        assert [reply.scores for reply in replies] == [[true_score("word")]] * 2
        assert flights(replicas[1], "given_up") == 1
        assert redis_server.process is not None
        redis_server.process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("outcome", ["fails", "is cancelled"])
async def test_a_replica_that_waits_computes_when_the_other_does_not(
    scripted_settings: Settings, device: ScriptedDevice, redis_server: RedisServer, outcome: str
) -> None:
    text = "poison" if outcome == "fails" else "word"
    async with two_replicas(scripted_settings, redis_server) as replicas:
        async with one_computes_and_one_waits(replicas, device, text) as (computing, waiting):
            if outcome == "is cancelled":
                computing.cancel()  # its connection closes
                await wait_until(lambda: flights(replicas[1], "given_up") == 1)
            device.release()
            reply = await waiting
        if outcome == "fails":
            assert (await computing).json["results"][0]["error"]["code"] == "inference_failed"
        assert all_scored(reply, [text]) is (outcome == "is cancelled")
        assert flights(replicas[1], "given_up") == 1


async def test_a_deadline_that_is_shorter_than_the_wait_holds(
    scripted_settings: Settings, device: ScriptedDevice, redis_server: RedisServer
) -> None:
    header = "X-Assay-Timeout-Ms: 200"
    async with (
        two_replicas(scripted_settings, redis_server, redis_wait=3600) as replicas,
        one_computes_and_one_waits(replicas, device, "word", header) as requests,
    ):
        reply = await requests[1]
        assert (reply.status, reply.json["code"]) == (504, "deadline_exceeded")
        device.release()
        assert (await requests[0]).scores == [true_score("word")]


Plant = Callable[[Redis, RedisLocks, bytes], Awaitable[object]]


async def plant_garbage(client: Redis, locks: RedisLocks, key: bytes) -> None:
    client.set(LOCKS + key, b"rubbish")


async def plant_a_lock_of_another_key(client: Redis, locks: RedisLocks, key: bytes) -> None:
    await locks.claim([b"o" * 32])
    client.rename(LOCKS + b"o" * 32, LOCKS + key)


async def plant_a_list(client: Redis, locks: RedisLocks, key: bytes) -> None:
    client.rpush(LOCKS + key, "a")


async def plant_a_dead_replica(client: Redis, locks: RedisLocks, key: bytes) -> None:
    await locks.claim([key])
    client.delete(REPLICAS + locks.token)


async def plant_an_idle_replica(client: Redis, locks: RedisLocks, key: bytes) -> None:
    await locks.claim([key])
    client.persist(REPLICAS + locks.token)


@pytest.mark.parametrize(
    "plant",
    [
        plant_garbage,
        plant_a_lock_of_another_key,
        plant_a_list,
        plant_a_dead_replica,
        plant_an_idle_replica,
    ],
)
async def test_a_lock_whose_holder_does_not_compute_costs_time_alone(
    scripted_settings: Settings, device: ScriptedDevice, redis_server: RedisServer, plant: Plant
) -> None:
    options = {"redis_url": redis_server.url, "redis_wait": 0.2, "cache_bytes": 0}
    settings = Settings.model_validate({**scripted_settings.model_dump(), **options})
    locks = new_locks(redis_server.url)
    async with checked_server(settings) as server:
        with Redis(port=redis_server.port) as client:
            assert (await server.score(["word"])).scores == [true_score("word")]
            await wait_until(lambda: len(raw_names(client)) == 1)
            (name,) = raw_names(client)
            key = name.removeprefix(PREFIX)
            client.flushall()
            await plant(client, locks, key)
            assert client.exists(LOCKS + key)
            assert (await server.score(["word"])).scores == [true_score("word")]
    await locks.close()
    assert device.rows["word"] == 2


@pytest.fixture
def gate(tmp_path: Path) -> DeviceGate:
    return DeviceGate(tmp_path / "gate")


@asynccontextmanager
async def two_processes(
    folder: Path, redis: RedisServer, gate: DeviceGate, drain: str = "30"
) -> AsyncIterator[tuple[Process, Process, asyncio.Task[Reply], asyncio.Task[Reply]]]:
    """Run two processes: the first computes a text, held at the gate; the second waits for it."""
    start = partial(
        serving,
        folder,
        ASSAY_REDIS_URL=redis.url,
        ASSAY_REDIS_TIMEOUT="5",
        ASSAY_REDIS_WAIT="10",
        ASSAY_DRAIN_TIMEOUT=drain,
    )
    async with start() as first, start() as second:
        computing = asyncio.create_task(first.score([gate.text]))
        await gate.wait_for_device()
        waiting = asyncio.create_task(second.score([gate.text]))

        async def waits() -> bool:
            return LOST in (await second.get("/metrics")).body

        await wait_until_async(waits)
        assert WON in (await first.get("/metrics")).body
        yield first, second, computing, waiting


async def test_a_replica_that_waits_computes_when_the_other_is_killed(
    tmp_path: Path, redis_server: RedisServer, gate: DeviceGate
) -> None:
    async with two_processes(tmp_path, redis_server, gate) as (first, second, computing, waiting):
        first.stop(signal.SIGKILL)
        await first.wait_for_exit()
        gate.release()
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await computing
        await second.wait_for_queue(len(gate.text))
        await gate.wait_for_device()
        gate.release()
        assert (await waiting).scores == [true_score(gate.text)]
        assert b'outcome="given_up"} 1.0' in (await second.get("/metrics")).body


async def test_a_replica_that_stops_computes_what_another_waits_for(
    tmp_path: Path, redis_server: RedisServer, gate: DeviceGate
) -> None:
    async with two_processes(tmp_path, redis_server, gate) as (first, second, computing, waiting):
        first.stop()
        gate.release()
        for request in (computing, waiting):
            assert (await request).scores == [true_score(gate.text)]
        assert b'outcome="received"} 1.0' in (await second.get("/metrics")).body
        await first.wait_for_exit()


@only_nightly
async def test_a_replica_that_stops_without_computing_lets_the_other_compute(
    tmp_path: Path, redis_server: RedisServer, gate: DeviceGate
) -> None:
    async with two_processes(tmp_path, redis_server, gate, drain="0.1") as parts:
        first, second, computing, waiting = parts
        first.stop()
        assert (await computing).status == 503
        await second.wait_for_queue(len(gate.text))
        gate.release()
        assert (await waiting).scores == [true_score(gate.text)]
        assert b'outcome="given_up"} 1.0' in (await second.get("/metrics")).body
        await first.wait_for_exit()
