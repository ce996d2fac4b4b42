"""The caches: keys, bounds, the wire format in Redis, and failures of Redis."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis
from support.doubles import new_metrics, value
from support.redis_caches import new_redis_cache
from support.servers import RedisServer

from assay.cache.keys import cache_key, decode, encode
from assay.cache.memory import ENTRY_BYTES, MemoryCache
from assay.cache.redis import MAX_WRITES, RedisCache
from assay.cache.tiered import TieredCache
from assay.metrics import Metrics
from assay.scoring.prepared_cache import (
    MAX_DIGEST_BYTES,
    PreparedCache,
    PreparedItems,
    digest_of,
    prepared_items,
)
from assay_models.base import Input, Prepared

KEYS = [cache_key("f", str(number).encode()) for number in range(4)]


@asynccontextmanager
async def redis_cache(
    url: str, metrics: Metrics | None = None, secret: bytes = b""
) -> AsyncIterator[RedisCache]:
    cache = new_redis_cache(url, metrics=metrics, secret=secret)
    yield cache
    await cache.close()


async def test_many_lookups_at_once_wait_for_a_connection_and_none_fails(
    redis_server: RedisServer,
) -> None:
    metrics = new_metrics()
    async with redis_cache(redis_server.url, metrics) as cache:
        await cache.put_many({KEYS[0]: (1.0,)})
        while not await cache.get_many(KEYS[:1]):
            pass
        replies = await asyncio.gather(*(cache.get_many(KEYS[:1]) for _ in range(300)))
    assert replies == [{KEYS[0]: (1.0,)}] * 300
    lookups = value(metrics, "assay_cache_lookups_total", tier="redis", outcome="error")
    assert lookups == 0


@given(st.text(), st.binary(), st.text(), st.binary())
def test_keys_are_equal_only_for_equal_fingerprints_and_inputs(
    first: str, left: bytes, second: str, right: bytes
) -> None:
    is_same = (first, left) == (second, right)
    assert (cache_key(first, left) == cache_key(second, right)) is is_same


def test_a_key_depends_on_the_boundary_of_its_parts() -> None:
    assert cache_key("ab", b"c") != cache_key("a", b"bc")


@given(
    st.binary(min_size=1, max_size=64),
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=5),
)
def test_a_raw_is_encoded_and_decoded_bit_for_bit(key: bytes, numbers: list[float]) -> None:
    assert decode(key, encode(key, tuple(numbers))) == tuple(numbers)


@given(st.binary(max_size=64))
def test_garbage_is_not_decoded(value: bytes) -> None:
    assert decode(b"key", value) is None


def test_the_value_of_another_key_is_not_decoded() -> None:
    assert decode(KEYS[0], encode(KEYS[1], (1.0,))) is None
    assert decode(KEYS[0], 17) is None


async def test_memory_keeps_the_most_recently_used_raws_within_its_bound() -> None:
    cache = MemoryCache(2 * (ENTRY_BYTES + 32), new_metrics())
    await cache.put_many({KEYS[0]: (0.0,), KEYS[1]: (1.0,)})
    await cache.get_many([KEYS[0]])
    await cache.put_many({KEYS[2]: (2.0,)})
    assert set(await cache.get_many(KEYS)) == {KEYS[0], KEYS[2]}


async def test_memory_counts_the_bytes_of_a_repeated_key_once() -> None:
    metrics = new_metrics()
    cache = MemoryCache(10_000, metrics)
    for _ in range(3):
        await cache.put_many({KEYS[0]: (0.0, 1.0)})
    assert value(metrics, "assay_cache_bytes") == ENTRY_BYTES + 64


async def test_redis_shares_raws_between_processes_and_expires_them(
    redis_server: RedisServer,
) -> None:
    async with redis_cache(redis_server.url) as writer:
        await writer.put_many({KEYS[0]: (0.1,), KEYS[1]: (1.0, -2.5)})
    async with redis_cache(redis_server.url) as reader:
        assert await reader.get_many(KEYS) == {KEYS[0]: (0.1,), KEYS[1]: (1.0, -2.5)}
    with Redis.from_url(redis_server.url) as client:
        assert 0 < client.ttl(b"assay:" + KEYS[0]) <= 60


async def test_only_writes_count_against_the_bound_of_writes(redis_server: RedisServer) -> None:
    ended = asyncio.Event()
    async with redis_cache(redis_server.url) as cache:
        for _ in range(2 * MAX_WRITES):  # as releases and charges do
            cache.client.run(ended.wait())
        await cache.put_many({KEYS[0]: (0.1,)})
        ended.set()
    async with redis_cache(redis_server.url) as reader:
        assert await reader.get_many(KEYS[:1]) == {KEYS[0]: (0.1,)}


@pytest.mark.parametrize("garbage", [b"", b"x" * 16, b"\x00" * 24, encode(KEYS[1], (9.0,))])
async def test_a_damaged_value_is_a_miss(redis_server: RedisServer, garbage: bytes) -> None:
    metrics = new_metrics()
    with Redis.from_url(redis_server.url) as client:
        client.set(b"assay:" + KEYS[0], garbage)
    async with redis_cache(redis_server.url, metrics) as cache:
        assert await cache.get_many([KEYS[0]]) == {}
    assert value(metrics, "assay_cache_lookups_total", tier="redis", outcome="error") == 1


@pytest.mark.parametrize("raw", [(math.nan,), (math.inf,), (1.0, -math.inf)])
def test_a_raw_that_is_not_finite_is_not_decoded(raw: tuple[float, ...]) -> None:
    assert decode(b"key", encode(b"key", raw)) is None


async def test_with_a_secret_only_its_holders_find_and_write_raws(
    redis_server: RedisServer,
) -> None:
    secret = b"of all servers of a Redis"
    async with redis_cache(redis_server.url, secret=secret) as writer:
        await writer.put_many({KEYS[0]: (0.1,)})
    with Redis.from_url(redis_server.url) as client:
        (name,) = client.keys(b"*")
        stored = client.get(name)
        assert KEYS[0] not in name
        for key in (KEYS[0], name, name.removeprefix(b"assay:")):
            forged = encode(key, (9.0,))
            client.set(b"assay:" + key, forged)
            client.set(name, forged)
            async with redis_cache(redis_server.url, secret=secret) as reader:
                assert await reader.get_many([KEYS[0]]) == {}
        client.set(name, stored)
    for other, raws in ((b"", {KEYS[0]: (9.0,)}), (b"another", {}), (secret, {KEYS[0]: (0.1,)})):
        async with redis_cache(redis_server.url, secret=other) as reader:
            assert await reader.get_many([KEYS[0]]) == raws


async def test_a_key_of_another_type_is_a_miss(redis_server: RedisServer) -> None:
    with Redis.from_url(redis_server.url) as client:
        client.lpush(b"assay:" + KEYS[0], b"x")
    async with redis_cache(redis_server.url) as cache:
        assert await cache.get_many(KEYS) == {}
        await cache.put_many({KEYS[1]: (1.0,)})


async def test_an_unreachable_redis_is_not_called_during_the_pause(
    redis_server: RedisServer,
) -> None:
    now = [0.0]
    cache = new_redis_cache(redis_server.url, clock=lambda: now[0])
    await cache.put_many({KEYS[0]: (0.0,)})
    await cache.close()
    redis_server.kill()
    assert await cache.get_many(KEYS) == {}
    redis_server.start()
    with Redis.from_url(redis_server.url) as client:
        client.set(b"assay:" + KEYS[0], encode(KEYS[0], (0.5,)))
    assert await cache.get_many(KEYS) == {}, "no call during the pause, though Redis is back"
    now[0] = 6.0
    assert await cache.get_many(KEYS) == {KEYS[0]: (0.5,)}
    await cache.close()


async def test_tiers_are_asked_in_order_and_faster_ones_filled() -> None:
    fast, slow = MemoryCache(10_000, new_metrics()), MemoryCache(10_000, new_metrics())
    tiers = TieredCache([fast, slow])
    await slow.put_many({KEYS[0]: (0.0,)})
    await tiers.put_many({KEYS[1]: (1.0,)})
    assert await tiers.get_many(KEYS) == {KEYS[0]: (0.0,), KEYS[1]: (1.0,)}
    assert set(await fast.get_many(KEYS)) == {KEYS[0], KEYS[1]}
    assert await TieredCache([]).get_many(KEYS) == {}


def prepared_of_size(size: int) -> PreparedItems:
    return prepared_items("f", Prepared((Input(b"k" * size, 3, bytes(size)),)))


class TestPreparedCache:
    def test_a_digest_depends_on_everything_but_id_and_group(self) -> None:
        item = {"id": "a", "group": "g", "text": "t"}
        digest, _ = digest_of(b"scope", [item])
        assert digest == digest_of(b"scope", [{"text": "t", "id": "b"}])[0]
        others = [
            digest_of(b"other", [item]),
            digest_of(b"scope", [{"text": "u"}]),
            digest_of(b"scope", [{"text": None}]),
            digest_of(b"scope", [{"text_pair": "t"}]),
            digest_of(b"scope", [item, item]),
            digest_of(b"", [{"text": "t"}]),
        ]
        assert len({digest, *(other for other, _ in others)}) == 7

    @pytest.mark.parametrize(
        "odd", [{1: "a"}, {"text": object()}, {"text": "\ud800"}, {"n": 2**70}]
    )
    def test_fields_that_are_not_json_have_no_digest(self, odd: dict[Any, object]) -> None:
        assert digest_of(b"", [odd])[0] is None

    @pytest.mark.parametrize(
        "fields",
        [
            {"text": "x" * (MAX_DIGEST_BYTES + 1)},
            {"x" * (MAX_DIGEST_BYTES + 1): 1},
            {"messages": [{"role": "user", "content": ["x" * 1000] * 1100}]},
            {"scores": [0] * 100_000},
        ],
    )
    def test_long_items_have_no_digest_and_are_not_encoded(
        self, fields: dict[str, object], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        encoded: list[object] = []

        def encode(value: object, option: int) -> bytes:
            encoded.append(value)
            return b""

        monkeypatch.setattr("assay.scoring.prepared_cache.orjson.dumps", encode)
        assert digest_of(b"scope", [fields])[0] is None
        assert not encoded
        assert digest_of(b"scope", [{"text": "x" * 100_000}])[0] is not None

    def test_a_digest_contains_no_text(self) -> None:
        digest, size = digest_of(b"scope", [{"text": "a secret"}])
        assert digest is not None
        assert (len(digest), b"secret" in digest) == (32, False)
        assert size == len(b'[{"text":"a secret"}]')

    def test_the_least_recently_used_entry_is_evicted_at_the_bound(self) -> None:
        metrics = new_metrics()
        entries = [prepared_of_size(1000) for _ in range(4)]
        cache = PreparedCache(3 * entries[0].size, metrics)
        for number in range(3):
            cache.put(b"%d" % number, entries[number])
        assert cache.get(b"0") == entries[0]
        cache.put(b"3", entries[3])
        assert [cache.get(b"%d" % number) for number in range(4)] == [
            entries[0], None, entries[2], entries[3],
        ]  # fmt: skip
        assert value(metrics, "assay_prepared_bytes") == 3 * entries[0].size
        cache.put(b"3", entries[2])
        assert value(metrics, "assay_prepared_bytes") == 3 * entries[0].size

    def test_an_entry_larger_than_the_bound_is_not_stored(self) -> None:
        cache = PreparedCache(5000, new_metrics())
        small = prepared_of_size(10)
        cache.put(b"small", small)
        cache.put(b"large", prepared_of_size(10_000))
        assert (cache.get(b"small"), cache.get(b"large")) == (small, None)

    def test_the_size_counts_every_object_once(self) -> None:
        empty = prepared_items("f", Prepared(())).size
        text = "x" * 10_000
        assert prepared_items("f", Prepared((), state={"a": [text, text]})).size - empty < 12_000
        assert prepared_items("f", Prepared((), details={"a": (text,)})).size - empty > 10_000
        assert prepared_of_size(5000).size > 10_000
