"""Shares of API keys, and caches that keys do not share."""

import asyncio
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx2
import pytest
from redis import Redis
from support.doubles import new_metrics
from support.redis_caches import raw_names
from support.servers import RedisServer, Served

from assay.cache.keys import encode
from assay.errors import RateLimited
from assay.scoring.shares import BURST_SECONDS, Shares
from assay.settings import Settings
from assay.types import Caller, Share

ALICE, BOB = "the-key-of-alice", "the-key-of-bob!!"


def caller(name: str, rate: float | None = None, concurrency: int | None = None) -> Caller:
    return Caller(name, share=Share(rate, concurrency))


async def test_a_name_is_refused_while_it_is_in_debt_and_others_are_not() -> None:
    now = [0.0]
    shares = Shares(lambda: now[0], new_metrics())
    alice, bob = caller("alice", rate=100), caller("bob", rate=100)
    async with shares.admitted(alice):
        shares.charge(alice, int(100 * BURST_SECONDS) + 500)
    with pytest.raises(RateLimited) as failure:
        async with shares.admitted(alice):
            pass
    assert failure.value.retry_after == pytest.approx(5.01)
    async with shares.admitted(bob):
        pass
    now[0] = 5.01
    async with shares.admitted(alice):
        shares.charge(alice, 2)
    now[0] = 1000.0
    async with shares.admitted(alice):
        shares.charge(alice, int(100 * BURST_SECONDS))
    with pytest.raises(RateLimited):
        async with shares.admitted(alice):
            pass


async def test_requests_running_at_once_are_bounded_by_name() -> None:
    shares = Shares(lambda: 0.0, new_metrics())
    alice = caller("alice", concurrency=2)
    async with shares.admitted(alice), shares.admitted(alice):
        with pytest.raises(RateLimited):
            async with shares.admitted(alice):
                pass
        async with shares.admitted(caller("bob", concurrency=2)):
            pass
    async with shares.admitted(alice):
        pass


async def test_a_request_that_fails_frees_its_place() -> None:
    shares = Shares(lambda: 0.0, new_metrics())
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            async with shares.admitted(caller("alice", concurrency=1)):
                raise ZeroDivisionError


@pytest.fixture
def keyed(scripted_settings: Settings, tmp_path: Path) -> Settings:
    file = tmp_path / "keys.toml"
    digests = [hashlib.sha256(key.encode()).hexdigest() for key in (ALICE, BOB)]
    file.write_text(
        f'[alice]\nscopes = ["score"]\nsha256 = "{digests[0]}"\nrate = 5\n'
        f'[bob]\nscopes = ["score", "read"]\nsha256 = "{digests[1]}"\n'
    )
    return scripted_settings.model_copy(update={"api_keys_file": file})


async def post(client: httpx2.AsyncClient, key: str, texts: Sequence[str]) -> httpx2.Response:
    body = {"model": "scripted", "items": [{"text": text} for text in texts]}
    return await client.post("/v1/score", json=body, headers={"X-API-Key": key})


async def test_a_key_beyond_its_rate_gets_429_and_another_is_served(
    served: Served, keyed: Settings
) -> None:
    async with served(keyed) as client:
        assert (await post(client, ALICE, ["a"] * 100)).status_code == 200
        refused = await post(client, ALICE, ["b"])
        assert (await post(client, BOB, ["b"])).status_code == 200
    assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
    assert refused.json()["retryable"] is True
    assert int(refused.headers["retry-after"]) > 1


@pytest.mark.parametrize(
    ("item", "status"),
    [
        ({"text": "a" * 51}, 413),
        ({"text": "a", "surplus": 1}, 422),
        ({"text": "refused"}, 200),
    ],
)
async def test_work_that_ends_in_an_error_is_charged(
    served: Served, keyed: Settings, item: dict[str, Any], status: int
) -> None:
    settings = keyed.model_copy(update={"max_request_tokens": 50})
    body = {"model": "scripted", "items": [item] * 60}
    async with served(settings) as client:
        answer = await client.post("/v1/score", json=body, headers={"X-API-Key": ALICE})
        assert answer.status_code == status
        assert (await post(client, ALICE, ["b"])).status_code == 429
        assert (await post(client, BOB, ["b"])).status_code == 200


async def test_the_settings_share_holds_for_keys_without_one_of_their_own(
    served: Served, keyed: Settings
) -> None:
    async with served(keyed.model_copy(update={"key_rate": 0.001})) as client:
        assert (await post(client, BOB, ["a"])).status_code == 200
        assert (await post(client, BOB, ["a"])).status_code == 429
        assert (await post(client, ALICE, ["a"])).status_code == 200


async def sources(client: httpx2.AsyncClient, key: str) -> Any:
    answer = await post(client, key, ["a secret prompt"])
    return answer.json()["results"][0]["source"]


@pytest.mark.parametrize(("is_private", "second"), [(False, "cache"), (True, "computed")])
async def test_another_key_sees_that_a_text_was_scored_only_in_a_shared_cache(
    served: Served, keyed: Settings, redis_server: RedisServer, is_private: bool, second: str
) -> None:
    changes = {"private_cache": is_private, "redis_url": redis_server.url, "redis_timeout": 5.0}
    settings = Settings.model_validate({**keyed.model_dump(), **changes})
    async with served(settings) as client:
        assert await sources(client, ALICE) == "computed"
        assert await sources(client, ALICE) == "cache"
        assert await sources(client, BOB) == second
        text = (await client.get("/metrics", headers={"X-API-Key": BOB})).text
    prepared = f'assay_prepared_total{{model="scripted@1",source="computed"}} {1.0 + is_private}'
    assert prepared in text
    async with served(settings) as client:  # from Redis
        assert await sources(client, ALICE) == "cache"


async def test_identical_items_of_two_keys_in_flight_are_computed_twice_in_a_private_cache(
    served: Served, keyed: Settings
) -> None:
    async with served(keyed.model_copy(update={"private_cache": True})) as client:
        both = await asyncio.gather(sources(client, ALICE), sources(client, BOB))
    assert set(both) == {"computed"}


@pytest.mark.parametrize("raw", [(float("nan"),), (float("inf"),), (1.0, 2.0), ()])
async def test_a_stored_raw_that_no_model_makes_is_a_miss(
    served: Served, reference_settings: Settings, redis_server: RedisServer, raw: tuple[float, ...]
) -> None:
    settings = Settings.model_validate(
        {**reference_settings.model_dump(), "redis_url": redis_server.url, "runs": "off"}
    )
    body = {"model": "reference", "items": [{"text": "a b", "text_pair": "a"}]}
    with Redis.from_url(redis_server.url) as redis:
        async with served(settings) as client:
            right = (await client.post("/v1/score", json=body)).json()["results"][0]
        (name,) = raw_names(redis)
        redis.set(name, encode(name.removeprefix(b"assay:"), raw))
        async with served(settings) as client:
            again = (await client.post("/v1/score", json=body)).json()["results"][0]
    assert (again["status"], again["source"]) == ("ok", "computed")
    assert again["score"] == right["score"]
