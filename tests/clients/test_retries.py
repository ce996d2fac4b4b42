"""Retries: which failures are retried, after which wait, and when a call ends. No test waits."""

import contextlib
from collections.abc import Iterator
from itertools import repeat
from typing import Any

import pytest

from assay_client import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    InferenceFailedError,
    NotReadyError,
    RateLimitError,
)
from assay_client._transport.calls import Calls
from assay_client._transport.config import Config
from assay_client._transport.steps import Send
from assay_client.types import Response

ITEMS = [{"value": 1.0}]


@pytest.mark.parametrize("status", [408, 429, 502, 503, 504])
def test_a_transient_failure_is_retried(
    status: int, server: Any, connect: Any, canned: Any, fake_clock: Any
) -> None:
    server.script.extend([canned.problem(status, retryable=True), canned.answer(status)])
    reply = connect(server.url, clock=fake_clock.clock).score("code", ITEMS)
    assert reply.scores == [1.0]
    assert len(server.received) == 3
    assert fake_clock.waits == [0.125, 0.25]  # half of 0.25 s, half of 0.5 s


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422, 501])
def test_a_permanent_failure_is_not_retried(
    status: int, server: Any, connect: Any, canned: Any, fake_clock: Any
) -> None:
    server.always = canned.problem(status, retryable=True)
    with pytest.raises(APIStatusError) as caught:
        connect(server.url, clock=fake_clock.clock).score("code", ITEMS)
    assert caught.value.retryable is False
    assert len(server.received) == 1


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_reply_may_forbid_a_retry(
    status: int, server: Any, connect: Any, canned: Any, fake_clock: Any
) -> None:
    server.always = canned.problem(status, retryable=False)
    with pytest.raises(APIStatusError):
        connect(server.url, clock=fake_clock.clock).score("code", ITEMS)
    assert len(server.received) == 1


@pytest.mark.parametrize("fields", [{}, {"retryable": False}, {"retryable": "yes"}])
def test_a_500_is_not_retried(
    fields: Any, server: Any, connect: Any, canned: Any, fake_clock: Any
) -> None:
    server.always = canned.problem(500, "inference_failed", **fields)
    with pytest.raises(InferenceFailedError):
        connect(server.url, clock=fake_clock.clock).score("code", ITEMS)
    assert len(server.received) == 1


def test_a_500_that_is_retryable_is_retried(
    server: Any, connect: Any, canned: Any, fake_clock: Any
) -> None:
    server.script.append(canned.problem(500, retryable=True))
    assert connect(server.url, clock=fake_clock.clock).score("code", ITEMS).scores == [1.0]


@pytest.mark.parametrize("page", [b"", b"<h1>500 Internal Server Error</h1>", b"[]"])
def test_a_500_of_a_proxy_is_retried(
    page: bytes, server: Any, connect: Any, canned: Any, fake_clock: Any
) -> None:
    server.script.append(canned.answer(500, page))
    assert connect(server.url, clock=fake_clock.clock).score("code", ITEMS).scores == [1.0]


def test_a_lost_reply_is_retried(server: Any, connect: Any, canned: Any, fake_clock: Any) -> None:
    server.script.append(canned.answer(200, b"{", cut=5))
    assert connect(server.url, clock=fake_clock.clock).score("code", ITEMS).scores == [1.0]
    assert len(server.received) == 2


def test_the_last_failure_is_raised(
    server: Any, connect: Any, canned: Any, fake_clock: Any
) -> None:
    server.always = canned.problem(503)
    with pytest.raises(NotReadyError):
        connect(server.url, clock=fake_clock.clock, max_retries=2).score("code", ITEMS)
    assert len(server.received) == 3


def test_the_wait_doubles_up_to_its_maximum(
    connect: Any, refused_url: str, fake_clock: Any
) -> None:
    fake_clock.chance = 1.0
    with pytest.raises(APIConnectionError):
        connect(refused_url, clock=fake_clock.clock, max_retries=7).score("code", ITEMS)
    assert fake_clock.waits == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 8.0]


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("3", 3.0), ("0", 0.0), ("Sun, 06 Nov 1994 08:49:37 GMT", 7.0), ("Sun, 06 Nov 1994", 0.0)],
)
def test_retry_after_is_honoured(
    header: str, seconds: float, server: Any, connect: Any, canned: Any, fake_clock: Any
) -> None:
    fake_clock.chance = 0.0
    server.script.append(canned.problem(429, retry_after=header))
    connect(server.url, clock=fake_clock.clock).score("code", ITEMS)
    assert sum(fake_clock.waits) == seconds
    assert len(server.received) == 2


def test_jitter_is_added_to_retry_after(
    server: Any, connect: Any, canned: Any, fake_clock: Any
) -> None:
    server.script.append(canned.problem(429, retry_after="3"))
    connect(server.url, clock=fake_clock.clock).score("code", ITEMS)
    assert fake_clock.waits == [3.125]


@pytest.mark.parametrize("header", ["601", "Sun, 06 Nov 1994 09:49:37 GMT", "9" * 400])
def test_a_wait_beyond_the_deadline_fails_without_waiting(
    header: str, server: Any, connect: Any, canned: Any, fake_clock: Any
) -> None:
    server.always = canned.problem(429, retry_after=header)
    with pytest.raises(RateLimitError) as caught:
        connect(server.url, clock=fake_clock.clock).score("code", ITEMS)
    assert caught.value.retry_after is not None
    assert caught.value.retry_after > 600
    assert caught.value.retryable is True
    assert fake_clock.waits == []
    assert len(server.received) == 1


@pytest.mark.parametrize("header", ["soon", "-3", "inf", "nan", "1e3", ""])
def test_an_invalid_retry_after_is_ignored(
    header: str, server: Any, connect: Any, canned: Any, fake_clock: Any
) -> None:
    server.script.append(canned.problem(503, retry_after=header))
    connect(server.url, clock=fake_clock.clock).score("code", ITEMS)
    assert fake_clock.waits == [0.125]


def test_the_deadline_covers_all_attempts(
    server: Any, connect: Any, canned: Any, fake_clock: Any
) -> None:
    server.always = canned.problem(429, retry_after="4")
    with pytest.raises(RateLimitError):
        connect(server.url, clock=fake_clock.clock, max_retries=9).score("code", ITEMS, timeout=10)
    remaining = [int(received.headers["x-assay-timeout-ms"]) for received in server.received]
    assert remaining == [10_000, 5_875, 1_750]


def test_the_deadline_covers_all_requests_of_a_long_list(
    server: Any, connect: Any, canned: Any, fake_clock: Any
) -> None:
    def slow(received: Any) -> Any:
        fake_clock.now += 11.0
        return canned.json(canned.score_reply(received.body["items"]))

    server.script.append(slow)
    client = connect(server.url, clock=fake_clock.clock, max_items_per_request=1, timeout=10)
    with pytest.raises(APITimeoutError):
        client.score("code", ITEMS * 2)
    assert len(server.received) == 1


def test_a_long_deadline_is_limited_to_the_servers_maximum(server: Any, connect: Any) -> None:
    connect(server.url, timeout=1e6).score("code", ITEMS)
    assert server.received[0].headers["x-assay-timeout-ms"] == "3600000"


def test_one_request_id_for_all_attempts_of_a_call(
    server: Any, connect: Any, canned: Any, fake_clock: Any
) -> None:
    server.script.extend([canned.problem(503), canned.problem(503)])
    client = connect(server.url, clock=fake_clock.clock)
    client.score("code", ITEMS)
    client.score("code", ITEMS)
    ids = [received.headers["x-request-id"] for received in server.received]
    assert len(ids) == 4
    assert len(set(ids[:3])) == 1
    assert ids[3] != ids[0]


def _attempts(calls: Calls, responses: Iterator[Response]) -> int:
    """Return the number of requests of one call, if these are the responses."""
    steps = calls.models()
    response, sent = None, 0
    with contextlib.suppress(StopIteration, NotReadyError, RateLimitError):
        while True:
            step = steps.send(response)
            response = next(responses) if isinstance(step, Send) else None
            sent += isinstance(step, Send)
    return sent


@pytest.fixture
def calls(fake_clock: Any) -> Calls:
    fake_clock.chance = 0.0
    config = Config(
        ("http://any",),
        None,
        timeout=60,
        max_retries=1500,
        max_items_per_request=1,
        max_reply_bytes=1,
    )
    return Calls(config, fake_clock.clock)


DOWN = Response(503, {}, b"")
BUSY = Response(429, {"retry-after": "0"}, b"")
FINE = Response(200, {}, b'{"models": []}')


def test_the_retry_budget_ends_when_nothing_succeeds(calls: Calls) -> None:
    assert _attempts(calls, repeat(DOWN)) == 1001
    assert _attempts(calls, repeat(DOWN)) == 1


def test_successes_refill_the_retry_budget(calls: Calls) -> None:
    assert _attempts(calls, repeat(DOWN)) == 1001
    assert [_attempts(calls, repeat(FINE)) for _ in range(4)] == [1, 1, 1, 1]
    assert _attempts(calls, repeat(DOWN)) == 3


def test_retries_that_the_server_asks_for_take_no_budget(calls: Calls) -> None:
    assert _attempts(calls, repeat(BUSY)) == 1501
    assert _attempts(calls, repeat(DOWN)) == 1001


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf")])
def test_a_timeout_that_is_no_positive_number_is_refused(
    timeout: float, server: Any, connect: Any
) -> None:
    with pytest.raises(ValueError, match="timeout"):
        connect(server.url).score("code", ITEMS, timeout=timeout)
    with pytest.raises(ValueError, match="timeout"):
        connect(server.url, timeout=timeout)
