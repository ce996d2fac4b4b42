"""The caches: keys, bounds, the wire format in Redis, and what a broken Redis may not do."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis
from support.doubles import new_metrics, value
from support.servers import RedisServer

from assay.cache.keys import cache_key, decode, encode
from assay.cache.memory import ENTRY_BYTES, MemoryCache
from assay.cache.redis import RedisCache
from assay.cache.tiered import TieredCache
from assay.metrics import Metrics
from assay.scoring.prepared_cache import PreparedCache, PreparedItems, digest_of, prepared_items
from assay_models.base import Input, Prepared

KEYS = [cache_key("f", str(number).encode()) for number in range(4)]


@asynccontextmanager
async def redis_cache(url: str, metrics: Metrics | None = None) -> AsyncIterator[RedisCache]:
    cache = RedisCache(
        url, ttl=60, timeout=5.0, metrics=metrics or new_metrics(), clock=time.monotonic
    )
    yield cache
    await cache.close()


@given(st.text(), st.binary(), st.text(), st.binary())
def test_a_key_tells_every_fingerprint_and_input_apart(
    one: str, left: bytes, other: str, right: bytes
) -> None:
    same = (one, left) == (other, right)
    assert (cache_key(one, left) == cache_key(other, right)) is same


def test_a_key_does_not_glue_its_parts() -> None:
    assert cache_key("ab", b"c") != cache_key("a", b"bc")


@given(
    st.binary(min_size=1, max_size=64),
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=5),
)
def test_a_raw_survives_redis_bit_for_bit(key: bytes, numbers: list[float]) -> None:
    assert decode(key, encode(key, tuple(numbers))) == tuple(numbers)


@given(st.binary(max_size=64))
def test_garbage_is_not_a_raw(value: bytes) -> None:
    assert decode(b"key", value) is None


def test_the_value_of_another_key_is_not_a_raw() -> None:
    assert decode(KEYS[0], encode(KEYS[1], (1.0,))) is None
    assert decode(KEYS[0], 17) is None


async def test_memory_keeps_the_most_recently_used_within_its_bound() -> None:
    cache = MemoryCache(2 * (ENTRY_BYTES + 32), new_metrics())
    await cache.put_many({KEYS[0]: (0.0,), KEYS[1]: (1.0,)})
    await cache.get_many([KEYS[0]])
    await cache.put_many({KEYS[2]: (2.0,)})
    assert set(await cache.get_many(KEYS)) == {KEYS[0], KEYS[2]}


async def test_memory_counts_a_key_put_twice_once() -> None:
    metrics = new_metrics()
    cache = MemoryCache(10_000, metrics)
    for _ in range(3):
        await cache.put_many({KEYS[0]: (0.0, 1.0)})
    assert value(metrics, "assay_cache_bytes") == ENTRY_BYTES + 64


async def test_redis_keeps_raws_for_another_process_and_lets_them_expire(
    redis_server: RedisServer,
) -> None:
    async with redis_cache(redis_server.url) as writer:
        await writer.put_many({KEYS[0]: (0.1,), KEYS[1]: (1.0, -2.5)})
    async with redis_cache(redis_server.url) as reader:
        assert await reader.get_many(KEYS) == {KEYS[0]: (0.1,), KEYS[1]: (1.0, -2.5)}
    with Redis.from_url(redis_server.url) as client:
        assert 0 < client.ttl(b"assay:" + KEYS[0]) <= 60


@pytest.mark.parametrize("garbage", [b"", b"x" * 16, b"\x00" * 24, encode(KEYS[1], (9.0,))])
async def test_a_value_that_is_not_intact_is_a_miss(
    redis_server: RedisServer, garbage: bytes
) -> None:
    metrics = new_metrics()
    with Redis.from_url(redis_server.url) as client:
        client.set(b"assay:" + KEYS[0], garbage)
    async with redis_cache(redis_server.url, metrics) as cache:
        assert await cache.get_many([KEYS[0]]) == {}
    assert value(metrics, "assay_cache_lookups_total", tier="redis", outcome="error") == 1


async def test_a_key_of_another_type_is_a_miss(redis_server: RedisServer) -> None:
    with Redis.from_url(redis_server.url) as client:
        client.lpush(b"assay:" + KEYS[0], b"x")
    async with redis_cache(redis_server.url) as cache:
        assert await cache.get_many(KEYS) == {}
        await cache.put_many({KEYS[1]: (1.0,)})


async def test_a_redis_that_is_gone_is_left_alone_for_a_while(redis_server: RedisServer) -> None:
    now = [0.0]
    cache = RedisCache(
        redis_server.url, ttl=60, timeout=5.0, metrics=new_metrics(), clock=lambda: now[0]
    )
    await cache.put_many({KEYS[0]: (0.0,)})
    await cache.close()
    redis_server.kill()
    assert await cache.get_many(KEYS) == {}
    redis_server.start()
    with Redis.from_url(redis_server.url) as client:
        client.set(b"assay:" + KEYS[0], encode(KEYS[0], (0.5,)))
    assert await cache.get_many(KEYS) == {}, "it rests, however well Redis may be"
    now[0] = 6.0
    assert await cache.get_many(KEYS) == {KEYS[0]: (0.5,)}
    await cache.close()


async def test_tiers_are_asked_in_order_and_filled_on_the_way() -> None:
    fast, slow = MemoryCache(10_000, new_metrics()), MemoryCache(10_000, new_metrics())
    tiers = TieredCache([fast, slow])
    await slow.put_many({KEYS[0]: (0.0,)})
    await tiers.put_many({KEYS[1]: (1.0,)})
    assert await tiers.get_many(KEYS) == {KEYS[0]: (0.0,), KEYS[1]: (1.0,)}
    assert set(await fast.get_many(KEYS)) == {KEYS[0], KEYS[1]}
    assert await TieredCache([]).get_many(KEYS) == {}


def ready_of(size: int) -> PreparedItems:
    return prepared_items("f", Prepared((Input(b"k" * size, 3, bytes(size)),)))


class TestPrepared:
    def test_names_are_no_part_of_a_digest_and_all_else_is(self) -> None:
        item = {"id": "a", "group": "g", "text": "t"}
        digest = digest_of(b"scope", [item])
        assert digest == digest_of(b"scope", [{"text": "t", "id": "b"}])
        others = [
            digest_of(b"other", [item]),
            digest_of(b"scope", [{"text": "u"}]),
            digest_of(b"scope", [{"text": None}]),
            digest_of(b"scope", [{"text_pair": "t"}]),
            digest_of(b"scope", [item, item]),
            digest_of(b"", [{"text": "t"}]),
        ]
        assert len({digest, *others}) == 7

    @pytest.mark.parametrize(
        "odd", [{1: "a"}, {"text": object()}, {"text": "\ud800"}, {"n": 2**70}]
    )
    def test_what_json_cannot_say_is_not_remembered(self, odd: dict) -> None:
        assert digest_of(b"", [odd]) is None

    def test_a_digest_holds_no_text(self) -> None:
        digest = digest_of(b"scope", [{"text": "a secret"}])
        assert digest is not None
        assert (len(digest), b"secret" in digest) == (32, False)

    def test_the_bound_holds_and_the_least_recently_used_goes_first(self) -> None:
        metrics = new_metrics()
        ready = [ready_of(1000) for _ in range(4)]
        cache = PreparedCache(3 * ready[0].size, metrics)
        for number in range(3):
            cache.put(b"%d" % number, ready[number])
        assert cache.get(b"0") == ready[0]
        cache.put(b"3", ready[3])
        assert [cache.get(b"%d" % number) for number in range(4)] == [
            ready[0], None, ready[2], ready[3],
        ]  # fmt: skip
        assert value(metrics, "assay_prepared_bytes") == 3 * ready[0].size
        cache.put(b"3", ready[2])
        assert value(metrics, "assay_prepared_bytes") == 3 * ready[0].size

    def test_what_is_larger_than_the_bound_drives_nobody_out(self) -> None:
        cache = PreparedCache(5000, new_metrics())
        small = ready_of(10)
        cache.put(b"small", small)
        cache.put(b"large", ready_of(10_000))
        assert (cache.get(b"small"), cache.get(b"large")) == (small, None)

    def test_the_size_counts_all_that_is_held_and_each_object_once(self) -> None:
        empty = prepared_items("f", Prepared(())).size
        text = "x" * 10_000
        assert prepared_items("f", Prepared((), state={"a": [text, text]})).size - empty < 12_000
        assert prepared_items("f", Prepared((), details={"a": (text,)})).size - empty > 10_000
        assert ready_of(5000).size > 10_000
