"""Servers that are starting: what a call waits for, and `wait_until_ready`. No test waits."""

import asyncio
from contextlib import aclosing, closing
from typing import Any

import pytest

from assay_client import (
    APIConnectionError,
    NotFoundError,
    NotReadyError,
    RateLimitError,
)
from assay_client.trainers._rewards import AsyncReward, SyncReward

ITEMS = [{"value": 1.0}]
LOADING = {"ready": False, "models": {"code@2": "ready", "nli@2": "loading"}}
FAILED = {"ready": False, "models": {"code@2": "ready", "nli@2": "failed: no weights"}}


def not_ready(canned: Any) -> Any:
    return canned.problem(503, "model_not_ready", retryable=True, retry_after="2")


def test_a_call_outlasts_a_start_of_half_a_minute(
    server: Any, connect: Any, canned: Any, fake_clock: Any
) -> None:
    server.script.extend([not_ready(canned)] * 15)
    assert connect(server.url, clock=fake_clock.clock).score("code", ITEMS).scores == [1.0]
    assert sum(fake_clock.waits) == pytest.approx(15 * 2.125)


def test_a_start_does_not_use_up_the_retries(
    server: Any, connect: Any, canned: Any, fake_clock: Any
) -> None:
    busy = canned.problem(429, retryable=True, retry_after="1")
    server.script.extend([not_ready(canned)] * 9 + [busy] * 3)
    with pytest.raises(RateLimitError):
        connect(server.url, clock=fake_clock.clock, max_retries=2).score("code", ITEMS)
    assert len(server.received) == 12


def test_a_start_is_waited_for_within_the_timeout(
    server: Any, connect: Any, canned: Any, fake_clock: Any
) -> None:
    server.always = not_ready(canned)
    with pytest.raises(NotReadyError):
        connect(server.url, clock=fake_clock.clock).score("code", ITEMS, timeout=9)
    assert sum(fake_clock.waits) < 9


@pytest.mark.parametrize("code", ["model_failed", "model_not_ready"])
def test_a_model_that_will_not_start_is_not_waited_for(
    code: str, server: Any, connect: Any, canned: Any, fake_clock: Any
) -> None:
    server.always = canned.problem(503, code, retryable=False, retry_after="2")
    with pytest.raises(NotReadyError):
        connect(server.url, clock=fake_clock.clock).score("code", ITEMS)
    assert len(server.received) == 1


def test_without_retries_a_start_is_not_waited_for(
    server: Any, connect: Any, canned: Any, fake_clock: Any
) -> None:
    server.always = not_ready(canned)
    with pytest.raises(NotReadyError):
        connect(server.url, clock=fake_clock.clock, max_retries=0).score("code", ITEMS)
    assert len(server.received) == 1


def test_wait_until_ready_returns_as_soon_as_a_server_is_ready(
    server: Any, connect: Any, canned: Any, fake_clock: Any, refused_url: str
) -> None:
    server.script.extend([canned.json(LOADING, 503)] * 3)
    client = connect([refused_url, server.url], clock=fake_clock.clock)
    assert client.wait_until_ready(60) is None
    assert [received.path for received in server.received] == ["/readyz"] * 4
    assert fake_clock.waits == [1.0] * 3


def test_wait_until_ready_names_the_models_that_are_not(
    server: Any, connect: Any, canned: Any, fake_clock: Any
) -> None:
    server.always = canned.json(LOADING, 503)
    with pytest.raises(NotReadyError, match="ready within 10 s: nli@2: loading") as caught:
        connect(server.url, clock=fake_clock.clock).wait_until_ready(10)
    assert (caught.value.code, caught.value.status_code) == ("model_not_ready", 503)
    assert sum(fake_clock.waits) == 9


def test_wait_until_ready_gives_up_at_once_if_a_model_failed(
    server: Any, connect: Any, canned: Any, fake_clock: Any
) -> None:
    server.always = canned.json(FAILED, 503)
    with pytest.raises(NotReadyError, match="no server will be ready: nli@2: failed: no weights"):
        connect(server.url, clock=fake_clock.clock).wait_until_ready()
    assert fake_clock.waits == []


@pytest.mark.parametrize("body", [b"", b"[]", b'{"models": []}'])
def test_wait_until_ready_needs_no_body(
    body: bytes, server: Any, connect: Any, canned: Any, fake_clock: Any
) -> None:
    server.always = canned.answer(503, body)
    with pytest.raises(NotReadyError, match="no server was ready within 2 s"):
        connect(server.url, clock=fake_clock.clock).wait_until_ready(2)


def test_wait_until_ready_without_a_server_says_so(
    connect: Any, refused_url: str, fake_clock: Any
) -> None:
    with pytest.raises(APIConnectionError, match="no server was ready within 5 s: no whole reply"):
        connect(refused_url, clock=fake_clock.clock).wait_until_ready(5)
    assert len(fake_clock.waits) == 4


def test_wait_until_ready_raises_for_a_wrong_address(
    server: Any, connect: Any, fake_clock: Any
) -> None:
    with pytest.raises(NotFoundError):
        connect(f"{server.url}/elsewhere", clock=fake_clock.clock).wait_until_ready()
    with pytest.raises(ValueError, match="positive number of seconds"):
        connect(server.url).wait_until_ready(0)


def test_a_reward_waits_for_the_start_before_its_first_call(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASSAY_REWARD_STARTUP_TIMEOUT", "30")
    reward = SyncReward("code", on_failure="raise", url=server.url)
    assert reward.scores(ITEMS) == reward.scores(ITEMS) == [1.0]
    reward.close()
    paths = [received.path for received in server.received]
    assert paths == ["/readyz", "/v1/score", "/v1/score"]


async def test_concurrent_calls_of_a_reward_share_one_wait_for_the_start(server: Any) -> None:
    reward = AsyncReward("code", on_failure="raise", url=server.url, startup_timeout=30)
    assert await asyncio.gather(*(reward.scores(ITEMS) for _ in range(9))) == [[1.0]] * 9
    assert await reward.scores(ITEMS) == [1.0]
    await reward.aclose()
    assert [received.path for received in server.received].count("/readyz") == 1


def test_a_reward_whose_server_does_not_start_fails_by_its_policy(server: Any, canned: Any) -> None:
    server.always = canned.json(FAILED, 503)
    with closing(
        SyncReward("code", on_failure="none", url=server.url, startup_timeout=9)
    ) as reward:
        assert reward.scores(ITEMS) == [None]
    assert dict(reward.failures.reasons) == {"model_not_ready": 1}


async def test_an_asynchronous_reward_whose_server_does_not_start_raises(
    server: Any, canned: Any
) -> None:
    server.always = canned.json(FAILED, 503)
    reward = AsyncReward("code", on_failure="raise", url=server.url, startup_timeout=9)
    async with aclosing(reward):
        with pytest.raises(NotReadyError, match="failed: no weights"):
            await reward.scores(ITEMS)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"fields": "prompt"}, "fields must be a dict, such as"),
        ({"options": "left"}, "options must be a dict, such as"),
        ({"run": {"id": "exp-17"}}, "run must be the run's name"),
        ({"run": ""}, "run must be the run's name"),
        ({"startup_timeout": -1}, "startup_timeout must be a number of seconds"),
        ({"url": "localhost:8000"}, "base_url has no scheme"),
        ({"timeout": 0}, "timeout must be a positive number"),
    ],
)
def test_a_wrong_setting_of_a_reward_is_refused_in_the_callers_words(
    wrong: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        SyncReward("code", on_failure="raise", **wrong)
