"""Redis that refuses, of every kind: the reason is logged once, and is in /readyz and a metric."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from urllib.parse import quote

import httpx2
import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError, ReadOnlyError
from support.doubles import new_metrics, value
from support.redis_caches import new_redis_cache
from support.servers import RedisServer, Served, free_port

from assay.cache.keys import cache_key
from assay.cache.redis import RedisCache
from assay.cache.redis_state import REPEAT_SECONDS, RedisState, reason_of
from assay.settings import Settings

MAX_CLUSTER_PORT = 55_535  # a cluster's nodes talk to one another on a port 10,000 above
KEY = cache_key("f", b"one")
OTHER = cache_key("f", b"two")
TLS_ALERT = b"\x15\x03\x01\x00\x02\x02\x46"  # what a TLS port answers to a plain command


@contextmanager
def running(folder: Path, *options: str) -> Iterator[RedisServer]:
    server = RedisServer(folder, *options)
    while server.port > MAX_CLUSTER_PORT:
        server = RedisServer(folder, *options)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@asynccontextmanager
async def started(url: str, timeout: float = 5.0) -> AsyncIterator[RedisCache]:
    """Yield a cache after its first call of Redis."""
    cache = new_redis_cache(url, timeout=timeout, clock=lambda: 0.0)
    cache.start()
    await asyncio.wait(cache.client.pending)
    yield cache
    await cache.close()


async def state_at_start(url: str, timeout: float = 5.0) -> str:
    async with started(url, timeout) as cache:
        return cache.client.state.state


@asynccontextmanager
async def answering(reply: bytes) -> AsyncIterator[str]:
    """Yield the URL of a server that answers everything with `reply`, and then closes."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65_536)
        writer.write(reply)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"


async def test_a_redis_that_works_is_said_to_work(redis_server: RedisServer) -> None:
    metrics = new_metrics()
    cache = new_redis_cache(redis_server.url, metrics=metrics, clock=lambda: 0.0)
    assert cache.client.state.state == "connecting"
    assert value(metrics, "assay_cache_up", tier="redis") == 0
    cache.start()
    await cache.close()
    assert cache.client.state.state == "working"
    assert value(metrics, "assay_cache_up", tier="redis") == 1


@pytest.mark.parametrize(
    ("credentials", "state"),
    [
        (":right@", "working"),
        ("default:right@", "working"),
        (":wrong@", "failing: it refuses the user or password; correct them in ASSAY_REDIS_URL"),
        ("", "failing: it requires a password; write redis://:PASSWORD@HOST in ASSAY_REDIS_URL"),
        ("reader:right@", "working"),
        ("reader:wrong@", "failing: it refuses the user or password"),
        ("stranger:right@", "failing: it refuses the user or password"),
        ("limited:right@", "failing: its user may not use MGET and SET on the keys assay:*"),
    ],
)
async def test_credentials_of_every_kind_are_used_or_refused_at_start(
    tmp_path: Path, credentials: str, state: str
) -> None:
    with running(tmp_path, "--requirepass", "right") as server:
        with Redis(port=server.port, password="right") as client:
            for user, keys, command in (("reader", "assay:*", "+mget"), ("limited", "o:*", "+get")):
                client.acl_setuser(
                    user, enabled=True, passwords="+right", keys=[keys], commands=[command]
                )
        url = f"redis://{credentials}127.0.0.1:{server.port}/0"
        assert (await state_at_start(url)).startswith(state)


async def test_a_password_that_redis_does_not_have_is_named(redis_server: RedisServer) -> None:
    url = f"redis://:any@127.0.0.1:{redis_server.port}/0"
    assert "has no password, and ASSAY_REDIS_URL has one" in await state_at_start(url)


async def test_a_database_that_does_not_exist_is_named(redis_server: RedisServer) -> None:
    url = f"redis://127.0.0.1:{redis_server.port}/99"
    assert "it has no such database" in await state_at_start(url)


async def test_a_cluster_is_named(tmp_path: Path) -> None:
    with running(tmp_path, "--cluster-enabled", "yes") as server:
        assert "it is a Redis Cluster" in await state_at_start(server.url)
        with Redis(port=server.port) as client:
            client.execute_command("CLUSTER", "ADDSLOTS", *range(16_384))
        assert "it is a Redis Cluster" in await state_at_start(server.url)


async def test_tls_where_there_is_none_is_named(redis_server: RedisServer) -> None:
    silent = await state_at_start(f"rediss://127.0.0.1:{redis_server.port}/0", timeout=0.3)
    assert "without TLS it would not answer rediss://" in silent
    async with answering(b"-ERR unknown command\r\n") as url:
        plain = await state_at_start(url.replace("redis://", "rediss://"))
    assert "it does not speak TLS; write redis:// instead of rediss://" in plain


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (TLS_ALERT, "it closes the connection; if it expects TLS, write rediss://"),
        (b"", "it closes the connection; if it expects TLS, write rediss://"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "it does not speak the protocol of Redis"),
        (b"-MOVED 3999 10.0.0.2:6379\r\n", "it is a Redis Cluster"),
        (b"-LOADING Redis is loading the dataset in memory\r\n", "it is loading its data"),
        (b"-MASTERDOWN Link with MASTER is down\r\n", "it is a replica without its primary"),
        (b"-ERR max number of clients reached\r\n", "it has no free connection"),
        (b"-ERR unknown command `MGET`\r\n", "its proxy, does not know one of"),
    ],
)
async def test_a_reply_that_is_no_value_is_explained(reply: bytes, reason: str) -> None:
    async with answering(reply) as url:
        assert reason in await state_at_start(url)


async def test_an_address_without_a_redis_is_named() -> None:
    refused = await state_at_start(f"redis://127.0.0.1:{free_port()}/0")
    assert refused == "failing: it refuses connections; start it, or correct ASSAY_REDIS_URL"


async def test_a_certificate_that_is_not_trusted_is_named() -> None:
    untrusted = RedisConnectionError("Error connecting")
    untrusted.__cause__ = ssl.SSLCertVerificationError("self-signed certificate")
    assert "its certificate is not trusted" in reason_of(untrusted)


def test_an_unforeseen_failure_is_named_by_its_type_alone() -> None:
    assert reason_of(KeyError("assay:secret")) == "KeyError in calling it"


class WithoutHello:
    """A proxy in front of Redis that closes the connection at HELLO and CLIENT, as old ones do."""

    def __init__(self, upstream: int) -> None:
        self._upstream = upstream
        self.commands: list[bytes] = []

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection(
            "127.0.0.1", self._upstream
        )
        while data := await reader.read(65_536):
            self.commands.append(data)
            if b"HELLO" in data or b"CLIENT" in data:
                break
            upstream_writer.write(data)
            writer.write(await upstream_reader.read(65_536))
        upstream_writer.close()
        writer.close()


async def test_a_proxy_that_refuses_hello_serves_the_cache(redis_server: RedisServer) -> None:
    proxy = WithoutHello(redis_server.port)
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    async with server:
        url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
        async with started(url) as cache:
            await cache.put_many({KEY: (1.5,)})
            await asyncio.wait(cache.client.pending)
            assert await cache.get_many([KEY]) == {KEY: (1.5,)}
            assert cache.client.state.state == "working"
    assert proxy.commands


class TestRefusedWrites:
    async def write_and_read(self, server: RedisServer, reason: str) -> None:
        """Check that a refused write is explained, and that Redis is still read."""
        async with started(server.url) as cache:
            assert await cache.get_many([KEY]) == {KEY: (1.5,)}
            await cache.put_many({OTHER: (2.5,)})
            await asyncio.wait(cache.client.pending)
            assert reason in cache.client.state.state
            assert await cache.get_many([KEY]) == {KEY: (1.5,)}
            assert reason in cache.client.state.state, "a read says nothing about writes"

    async def store(self, server: RedisServer) -> None:
        async with started(server.url) as cache:
            await cache.put_many({KEY: (1.5,)})

    async def test_a_full_redis_is_read_and_explained(self, redis_server: RedisServer) -> None:
        await self.store(redis_server)
        with Redis(port=redis_server.port) as client:
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("maxmemory", 1)
        await self.write_and_read(redis_server, "its memory is full; set its maxmemory-policy")

    async def test_a_replica_is_read_and_explained(self, redis_server: RedisServer) -> None:
        await self.store(redis_server)
        with Redis(port=redis_server.port) as client:
            client.replicaof("127.0.0.1", free_port())
        await self.write_and_read(redis_server, "it is a read-only replica; name the primary")


class TestWarnings:
    @pytest.fixture(autouse=True)
    def all_levels(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "assay.cache")

    def state(self, now: list[float]) -> RedisState:
        return RedisState(new_metrics().cache_up.labels("redis"), lambda: now[0])

    def test_a_reason_is_logged_once_until_it_changes(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        state, slow, refused = self.state([0.0]), TimeoutError(), ConnectionRefusedError()
        for error in (slow, slow, refused, refused):
            state.record_failure(("reads", "writes"), error)
        state.record_success("reads")
        assert state.state == "working", "one connection serves both"
        assert [record.message for record in caplog.records] == [
            f"Redis is not used for reads and writes: {reason_of(slow)}",
            f"Redis is not used for reads and writes: {reason_of(refused)}",
            "Redis works again",
        ]

    def test_reads_and_writes_that_fail_for_different_reasons_are_logged_once_each(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        now = [0.0]
        state, denied, replica = self.state(now), NoPermissionError(), ReadOnlyError()
        for _ in range(100):
            state.record_failure(("reads",), denied)
            state.record_failure(("writes",), replica)
            now[0] += REPEAT_SECONDS
        assert caplog.messages == [
            f"Redis is not used for reads: {reason_of(denied)}",
            f"Redis is not used for writes: {reason_of(replica)}",
        ]
        state.record_failure(("reads",), replica)
        assert caplog.messages[2:] == [f"Redis is not used for reads: {reason_of(replica)}"]

    def test_a_redis_that_comes_and_goes_is_logged_once_a_minute(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        now = [0.0]
        state = self.state(now)
        for _ in range(100):
            state.record_failure(("reads",), TimeoutError())
            state.record_success("reads")
        assert len(caplog.records) == 2
        now[0] = REPEAT_SECONDS
        state.record_failure(("reads",), TimeoutError())
        assert len(caplog.records) == 3


async def test_a_wrong_password_is_logged_at_start_and_does_not_make_the_server_unready(
    tmp_path: Path,
    served: Served,
    reference_settings: Settings,
    caplog: pytest.LogCaptureFixture,
) -> None:
    secret = "hush/hush"
    with running(tmp_path, "--requirepass", "right") as server:
        given = Settings(redis_url=f"redis://:{quote(secret, safe='')}@127.0.0.1:{server.port}/0")
        settings = reference_settings.model_copy(
            update={"redis_url": given.redis_url, "redis_timeout": 5.0}
        )
        async with served(settings) as client:
            reply = await readiness(client)
            while reply["redis"] == "connecting":
                reply = await readiness(client)
            metrics = (await client.get("/metrics")).text
    reason = "it refuses the user or password; correct them in ASSAY_REDIS_URL"
    assert (reply["ready"], reply["redis"]) == (True, f"failing: {reason}")
    assert f"Redis is not used: {reason}" in caplog.messages
    assert 'assay_cache_up{tier="redis"} 0.0' in metrics
    assert "hush" not in caplog.text


async def readiness(client: httpx2.AsyncClient) -> dict[str, object]:
    answer = await client.get("/readyz")
    assert answer.status_code == 200
    reply = answer.json()
    assert isinstance(reply, dict)
    return reply


async def test_a_server_without_redis_has_no_state_of_it(
    served: Served, reference_settings: Settings
) -> None:
    async with served(reference_settings) as client:
        assert (await readiness(client))["redis"] is None
        assert "assay_cache_up{" not in (await client.get("/metrics")).text
