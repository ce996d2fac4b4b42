"""Redis refused, hung, slow, lying, full, restarted: slower, never wrong, never down."""

import asyncio
import itertools
import signal
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Literal

import pytest
from redis import Redis
from support.doubles import new_metrics
from support.servers import RedisServer, free_port

from assay.cache.redis import MAX_PAUSE, RedisCache
from assay.settings import Settings

from .devices import Clock, Script, eventually, truth, until
from .servers import Server, standing

ROUNDS = 12
AT_ONCE = 8
TIMEOUT = 0.1
WORDS = [f"word {number}" for number in range(6)]


def with_redis(settings: Settings, url: str, **others: float) -> Settings:
    """Redis alone, so that every lookup is its own."""
    redis = Settings(redis_url=url)
    changed = {"redis_url": redis.redis_url, "redis_timeout": TIMEOUT, "cache_bytes": 0, **others}
    return settings.model_copy(update=changed)


async def scores_hold(server: Server, words: list[str]) -> list[str]:
    """The scores are right; where they came from."""
    answer = await server.ask(words)
    assert answer.scores == [truth(word) for word in words]
    return [result["source"] for result in answer.json["results"]]


async def load(server: Server, midway: Callable[[], None] = lambda: None) -> None:
    """Rounds of concurrent requests, old words and new ones, with something happening midway."""
    for number in range(ROUNDS):
        if number == ROUNDS // 2:
            midway()
        await asyncio.gather(
            *(scores_hold(server, [f"w{number}", f"x{n}", "same"]) for n in range(AT_ONCE))
        )


async def stored(server: Server, client: Redis, words: list[str]) -> None:
    """These words are scored, and their raws have reached Redis."""
    before = client.dbsize()
    await scores_hold(server, words)
    await until(lambda: client.dbsize() >= before + len(words))


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[Redis]:
    client = Redis(port=redis_server.port)
    yield client
    client.close()


class TestOutages:
    async def test_refused(self, scripted_settings: Settings, script: Script) -> None:
        url = f"redis://127.0.0.1:{free_port()}/0"
        async with standing(with_redis(scripted_settings, url)) as server:
            await load(server)

    async def test_killed_and_restarted(
        self, scripted_settings: Settings, script: Script, redis_server: RedisServer
    ) -> None:
        settings = with_redis(scripted_settings, redis_server.url, redis_timeout=0.02)
        async with standing(settings) as server:
            await load(server, redis_server.kill)
            await load(server, redis_server.start)

            async def in_use() -> bool:
                return await scores_hold(server, ["back again"]) == ["cache"]

            await eventually(in_use)

    async def test_hung_and_back(
        self, scripted_settings: Settings, script: Script, redis_server: RedisServer
    ) -> None:
        assert redis_server.process is not None
        process = redis_server.process
        async with standing(with_redis(scripted_settings, redis_server.url)) as server:
            await load(server, lambda: process.send_signal(signal.SIGSTOP))
            await load(server, lambda: process.send_signal(signal.SIGCONT))

    async def test_forgetting_everything(
        self, scripted_settings: Settings, script: Script, redis_server: RedisServer, client: Redis
    ) -> None:
        async with standing(with_redis(scripted_settings, redis_server.url)) as server:
            await load(server, lambda: client.flushall())


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
    client.execute_command("AUTH", "another")
    client.client_kill_filter(_type="normal", skipme=True)


def without_connections(client: Redis) -> None:
    client.config_set("maxclients", 1)
    client.client_kill_filter(_type="normal", skipme=True)


class TestRefusals:
    @pytest.mark.parametrize("refusing", [full, read_only, masterless, locked, without_connections])
    async def test_commands_that_redis_refuses(
        self,
        scripted_settings: Settings,
        script: Script,
        redis_server: RedisServer,
        client: Redis,
        refusing: Callable[[Redis], None],
    ) -> None:
        async with standing(with_redis(scripted_settings, redis_server.url)) as server:
            await stored(server, client, WORDS)
            await load(server, lambda: refusing(client))
            await scores_hold(server, WORDS)


def flipped(value: bytes, position: int) -> bytes:
    return value[:position] + bytes([value[position] ^ 0x40]) + value[position + 1 :]


def nan_of(value: bytes) -> bytes:
    return value[:8] + struct.pack(">d", float("nan"))


LIES: dict[str, Callable[[bytes], bytes]] = {
    **{f"byte {n} flipped": lambda value, n=n: flipped(value, n) for n in range(16)},
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
    @pytest.mark.parametrize("lie", LIES)
    async def test_a_damaged_value_is_a_miss_and_is_mended(
        self,
        scripted_settings: Settings,
        script: Script,
        redis_server: RedisServer,
        client: Redis,
        lie: str,
    ) -> None:
        async with standing(with_redis(scripted_settings, redis_server.url)) as server:
            await stored(server, client, ["word"])
            (name,) = client.keys()
            intact = client.get(name)
            client.set(name, LIES[lie](intact))
            assert await scores_hold(server, ["word"]) == ["computed"]
            await until(lambda: client.get(name) == intact)
            assert await scores_hold(server, ["word"]) == ["cache"]
            assert script.rows["word"] == 2

    async def test_values_of_other_keys_are_misses(
        self, scripted_settings: Settings, script: Script, redis_server: RedisServer, client: Redis
    ) -> None:
        async with standing(with_redis(scripted_settings, redis_server.url)) as server:
            await stored(server, client, WORDS)
            names = sorted(client.keys())
            values = client.mget(names)
            client.mset(dict(zip(names, values[1:] + values[:1], strict=True)))
            assert await scores_hold(server, WORDS) == ["computed"] * len(WORDS)

    async def test_keys_of_another_type_are_misses(
        self, scripted_settings: Settings, script: Script, redis_server: RedisServer, client: Redis
    ) -> None:
        async with standing(with_redis(scripted_settings, redis_server.url)) as server:
            await stored(server, client, WORDS)
            for name in client.keys("*"):
                client.delete(name)
                client.rpush(name, "a", "list")
            assert await scores_hold(server, WORDS) == ["computed"] * len(WORDS)

    async def test_one_damaged_value_spoils_none_of_its_neighbours(
        self, scripted_settings: Settings, script: Script, redis_server: RedisServer, client: Redis
    ) -> None:
        async with standing(with_redis(scripted_settings, redis_server.url)) as server:
            await stored(server, client, WORDS)
            client.set(client.keys()[0], b"rubbish")
            assert sorted(await scores_hold(server, WORDS)) == ["cache"] * 5 + ["computed"]


Mode = Literal["honest", "hung", "cut", "late"]


class Between:
    """Stands between the service and a real Redis, and does harm to the replies when told to.

    `hung` swallows them, `cut` resets the connection amid each, `late` keeps each back until the
    next command, by when nobody waits for it any more.
    """

    def __init__(self, upstream: int) -> None:
        self.mode: Mode = "honest"
        self.lookups = 0
        self.connections = 0
        self._upstream = upstream
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        async with server:
            yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
            for writer in self._writers:
                writer.close()
            if self._tasks:
                await asyncio.wait(self._tasks)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        above = await asyncio.open_connection("127.0.0.1", self._upstream)
        self._writers += [writer, above[1]]
        held = bytearray()
        work: list[Awaitable[None]] = [
            self._ask(reader, writer, above[1], held),
            self._reply(above[0], writer, held),
        ]
        for pump in work:
            self._tasks.add(asyncio.ensure_future(pump))

    async def _ask(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        above: asyncio.StreamWriter,
        held: bytearray,
    ) -> None:
        while data := await self._read(reader):
            self.lookups += data.count(b"MGET")
            if held:
                writer.write(bytes(held))
                held.clear()
            above.write(data)
        above.close()

    async def _reply(
        self, above: asyncio.StreamReader, writer: asyncio.StreamWriter, held: bytearray
    ) -> None:
        while data := await self._read(above):
            if self.mode == "honest":
                writer.write(data)
            elif self.mode == "late":
                held += data
            elif self.mode == "cut":
                writer.write(data[: len(data) // 2])
                await asyncio.sleep(0)
                linger = struct.pack("ii", 1, 0)
                sock = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                writer.transport.abort()

    async def _read(self, reader: asyncio.StreamReader) -> bytes:
        try:
            return await reader.read(65536)
        except ConnectionError:
            return b""


class TestBadConnections:
    @pytest.mark.parametrize("mode", ["hung", "cut", "late"])
    async def test_replies_that_never_come_come_in_part_or_come_too_late(
        self,
        scripted_settings: Settings,
        script: Script,
        redis_server: RedisServer,
        client: Redis,
        mode: Mode,
    ) -> None:
        between = Between(redis_server.port)
        async with (
            between.listening() as url,
            standing(with_redis(scripted_settings, url)) as server,
        ):
            await stored(server, client, WORDS)
            assert await scores_hold(server, WORDS) == ["cache"] * len(WORDS)
            between.mode = mode
            before = between.lookups
            for number in range(100):
                await scores_hold(server, [WORDS[number % 6], f"new {number}"])
            assert between.lookups - before < 20, "it is left alone, longer each time"

    async def test_a_crowd_before_a_hung_redis_waits_for_it_once(
        self, scripted_settings: Settings, script: Script, redis_server: RedisServer
    ) -> None:
        between = Between(redis_server.port)
        between.mode = "hung"
        async with (
            between.listening() as url,
            standing(with_redis(scripted_settings, url, redis_timeout=0.5)) as server,
        ):
            await asyncio.gather(*(scores_hold(server, [f"text {n}"]) for n in range(30)))
            known = between.connections
            await asyncio.gather(*(scores_hold(server, [f"text {n}"]) for n in range(30)))
            assert between.connections == known, "the second crowd asked nobody"

    async def test_rests_grow_to_half_a_minute_and_end_with_the_outage(
        self, redis_server: RedisServer
    ) -> None:
        between, clock, key = Between(redis_server.port), Clock(), b"k" * 32
        async with between.listening() as url:
            cache = RedisCache(url, ttl=60, timeout=0.02, metrics=new_metrics(), clock=clock)
            await cache.put_many({key: (1.0,)})

            async def stored_there() -> bool:
                return bool(await cache.get_many([key]))

            await eventually(stored_there)
            between.mode = "hung"
            known, tries = between.connections, []
            for second in range(600):
                clock.now += 1
                assert await cache.get_many([key]) in ({}, {key: (1.0,)})
                if between.connections > known:
                    known = between.connections
                    tries.append(second)
            pauses = [after - before for before, after in itertools.pairwise(tries)]
            assert pauses == sorted(pauses), "each rest is at least as long as the one before"
            assert pauses[-5:] == [MAX_PAUSE] * 5
            between.mode = "honest"
            clock.now += MAX_PAUSE
            assert await cache.get_many([key]) == {key: (1.0,)}
            assert await cache.get_many([key]) == {key: (1.0,)}, "and the rest is over"
            await cache.close()


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
    """A server that answers everything with the same bytes, or hangs up."""
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        try:
            while await reader.read(65536) and answer:
                writer.write(answer)
        except ConnectionError:
            pass
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
        for writer in writers:
            writer.close()


@pytest.mark.parametrize("answer", GARBAGE, ids=[repr(garbage[:12]) for garbage in GARBAGE])
async def test_a_server_that_is_no_redis_at_all(
    scripted_settings: Settings, script: Script, answer: bytes
) -> None:
    async with liar(answer) as url, standing(with_redis(scripted_settings, url)) as server:
        for number in range(3):
            await asyncio.gather(*(scores_hold(server, [f"w{number}", "same"]) for _ in range(4)))
