"""Shares of API keys that hold for all replicas together, in a real Redis."""

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from redis import Redis
from support.doubles import new_metrics, value
from support.redis_caches import as_bytes, new_client
from support.servers import RedisServer, Served

from assay.cache import balances
from assay.cache.balances import LEASE_SECONDS, RUNNING_OF, TOKENS_OF, RedisBalances
from assay.cache.redis_client import RedisClient
from assay.errors import RateLimited
from assay.metrics import Metrics
from assay.scoring.shares import BURST_SECONDS, Shares
from assay.settings import Settings
from assay.types import Caller, Share

KEY = "the-key-of-alice"
SLOW = Caller("alice", share=Share(rate=0.001))
TWO = Caller("alice", share=Share(concurrency=2))


class Replica:
    """The shares of one replica."""

    def __init__(self, client: RedisClient, metrics: Metrics) -> None:
        self.client = client
        self.metrics = metrics
        self.balances = RedisBalances(client)
        self.shares = Shares(time.monotonic, metrics, self.balances)

    async def is_admitted(self, caller: Caller) -> bool:
        try:
            async with self.shares.admitted(caller):
                return True
        except RateLimited:
            return False

    async def settle(self) -> None:
        """Wait for the calls in the background."""
        while self.client.pending:
            await asyncio.wait(self.client.pending)

    def decided(self, name: str) -> float:
        return value(self.metrics, "assay_share_decisions_total", balances=name)


@asynccontextmanager
async def replicas(url: str, secret: bytes = b"") -> AsyncIterator[tuple[Replica, Replica]]:
    async with AsyncExitStack() as stack:
        both = []
        for _ in range(2):
            metrics = new_metrics()
            replica = Replica(new_client(url, metrics=metrics, secret=secret), metrics)
            stack.push_async_callback(replica.client.close)
            stack.callback(replica.balances.close)
            both.append(replica)
        yield both[0], both[1]


@pytest.fixture
def redis(redis_server: RedisServer) -> Iterator[Redis]:
    with Redis(port=redis_server.port) as client:
        yield client


async def test_a_debt_at_one_replica_is_one_at_every_replica(redis_server: RedisServer) -> None:
    async with replicas(redis_server.url) as (first, second):
        async with first.shares.admitted(SLOW):
            first.shares.charge(SLOW, 100)
        await first.settle()
        with pytest.raises(RateLimited) as refusal:
            async with second.shares.admitted(SLOW):
                pass
        assert refusal.value.retry_after == pytest.approx(100 / 0.001, rel=0.02)
        assert await second.is_admitted(Caller("bob", share=SLOW.share))
        assert (second.decided("redis"), second.decided("own")) == (2, 0)


async def test_tokens_come_back_with_the_time_of_redis_and_not_beyond_the_maximum(
    redis_server: RedisServer, redis: Redis
) -> None:
    name = TOKENS_OF + b"alice"
    caller = Caller("alice", share=Share(rate=100.0))
    async with replicas(redis_server.url) as (first, second):
        async with first.shares.admitted(caller):
            first.shares.charge(caller, int(100 * BURST_SECONDS) + 500)
        await first.settle()
        assert not await second.is_admitted(caller)
        redis.hset(name, "updated", float(redis.hget(name, "updated") or b"0") - 6)
        assert await second.is_admitted(caller)
        redis.hset(name, "updated", 0)
        assert await second.is_admitted(caller)
        assert float(redis.hget(name, "tokens") or b"nan") == 100 * BURST_SECONDS
        assert 0 < redis.pttl(name) <= 2000, "a full balance is soon forgotten"


async def test_a_clock_of_redis_that_is_set_back_adds_no_tokens_and_blocks_no_key(
    redis_server: RedisServer, redis: Redis
) -> None:
    name, caller = TOKENS_OF + b"alice", Caller("alice", share=Share(rate=1.0))
    async with replicas(redis_server.url) as (first, second):
        assert await first.is_admitted(caller)
        redis.hset(name, mapping={"tokens": "-0.5", "updated": time.time() + 3600})
        assert not await second.is_admitted(caller)
        assert float(redis.hget(name, "updated") or b"nan") < time.time() + 60


async def test_requests_running_at_all_replicas_are_bounded(redis_server: RedisServer) -> None:
    async with replicas(redis_server.url) as (first, second), first.shares.admitted(TWO):
        async with second.shares.admitted(TWO):
            assert not await first.is_admitted(TWO)
            assert not await second.is_admitted(TWO)
            assert await second.is_admitted(Caller("bob", share=TWO.share))
        await second.settle()
        assert await first.is_admitted(TWO)


async def test_requests_of_a_killed_replica_are_given_back_and_those_of_a_live_one_renewed(
    redis_server: RedisServer, redis: Redis
) -> None:
    name, one = RUNNING_OF + b"alice", Caller("alice", share=Share(concurrency=1))
    async with replicas(redis_server.url) as (killed, live):
        async with killed.shares.admitted(one):
            assert not await live.is_admitted(one)
            assert 0 < redis.pttl(name) <= 1000 * LEASE_SECONDS
            (lease,) = map(as_bytes, redis.zrange(name, 0, -1))
            redis.zadd(name, {lease: time.time() + 1})
            killed.balances._renew()
            await killed.settle()
            assert (redis.zscore(name, lease) or 0.0) > time.time() + 1, "it is renewed"
            redis.zadd(name, {lease: time.time() - 1})  # as if the replica had been killed
            async with live.shares.admitted(one):
                killed.balances._renew()
                await killed.settle()
                assert redis.zcard(name) == 1, "a lease that has ended is not renewed"
        await killed.settle()
        await live.settle()
        assert redis.zcard(name) == 0


async def test_without_redis_each_replica_grants_its_own_share(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "assay.cache")
    async with replicas(redis_server.url) as (first, second):
        async with first.shares.admitted(SLOW):
            first.shares.charge(SLOW, 100)
        await first.settle()
        redis_server.kill()
        assert await second.is_admitted(SLOW)
        assert not await first.is_admitted(SLOW), "its own balance has the debt too"
        assert (second.decided("redis"), second.decided("own")) == (0, 1)
    assert any(text.startswith("Redis is not used: ") for text in caplog.messages)
    redis_server.start()


@pytest.mark.parametrize("secret", [b"", b"of all servers of a Redis"])
async def test_a_value_of_another_type_leaves_the_own_share(
    redis_server: RedisServer, redis: Redis, secret: bytes
) -> None:
    async with replicas(redis_server.url, secret) as (first, second):
        assert await first.is_admitted(SLOW)
        (name,) = map(as_bytes, redis.keys("assay:*"))
        assert name.endswith(b"alice") is not bool(secret)
        redis.delete(name)
        redis.rpush(name, "a", "list")
        assert await second.is_admitted(SLOW)
        assert (second.decided("redis"), second.decided("own")) == (0, 1)


async def test_balances_in_redis_that_are_no_numbers_count_as_full(
    redis_server: RedisServer, redis: Redis
) -> None:
    async with replicas(redis_server.url) as (first, _):
        redis.hset(TOKENS_OF + b"alice", mapping={"tokens": "rubbish", "updated": "x"})
        assert await first.is_admitted(SLOW)
        assert first.decided("redis") == 1


@pytest.mark.parametrize(
    "reply", [None, b"", [b"x", 1], [b"-inf", 0], [b"nan", 0], [b"1.0"], [1, 2], [b"1.0", b"1"], 7]
)
def test_a_reply_that_is_no_standing_is_none(reply: object) -> None:
    assert balances._standing(reply) is None


async def test_two_servers_over_one_redis_grant_one_share(
    served: Served,
    scripted_settings: Settings,
    redis_server: RedisServer,
    redis: Redis,
    tmp_path: Path,
) -> None:
    file = tmp_path / "keys.toml"
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    file.write_text(f'[alice]\nscopes = ["score"]\nsha256 = "{digest}"\nrate = 5\n')
    changes = {"api_keys_file": file, "redis_url": redis_server.url, "redis_timeout": 5.0}
    settings = Settings.model_validate({**scripted_settings.model_dump(), **changes})
    headers = {"X-API-Key": KEY}
    body = {"model": "scripted", "items": [{"text": "a"}] * 100}
    async with served(settings) as first, served(settings) as second:
        assert (await first.post("/v1/score", json=body, headers=headers)).status_code == 200
        while float(redis.hget(TOKENS_OF + b"alice", "tokens") or 0) >= 0:  # noqa: ASYNC110
            await asyncio.sleep(0)
        answer = await second.post("/v1/score", json=body, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited")
        assert int(answer.headers["retry-after"]) > 1
