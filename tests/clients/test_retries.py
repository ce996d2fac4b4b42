"""When a call is tried again, after which wait, and when it is given up. No test really waits."""

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
from assay_client._transport.calls import Calls, Send
from assay_client._transport.config import Config
from assay_client._transport.requests import Reply

ITEMS = [{"value": 1.0}]


@pytest.mark.parametrize("status", [408, 429, 502, 503, 504])
def test_what_may_pass_is_tried_again(
    status: int, server: Any, connect: Any, say: Any, fake_time: Any
) -> None:
    server.script.extend([say.problem(status, retryable=True), say.answer(status)])
    reply = connect(server.url, clock=fake_time.clock).score("code", ITEMS)
    assert reply.scores == [1.0]
    assert len(server.seen) == 3
    assert fake_time.waits == [0.125, 0.25]  # half of 0.25 s, half of 0.5 s


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422, 501])
def test_what_cannot_pass_is_not(
    status: int, server: Any, connect: Any, say: Any, fake_time: Any
) -> None:
    server.always = say.problem(status, retryable=True)
    with pytest.raises(APIStatusError) as caught:
        connect(server.url, clock=fake_time.clock).score("code", ITEMS)
    assert caught.value.retryable is False
    assert len(server.seen) == 1


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_the_reply_may_forbid_it(
    status: int, server: Any, connect: Any, say: Any, fake_time: Any
) -> None:
    server.always = say.problem(status, retryable=False)
    with pytest.raises(APIStatusError):
        connect(server.url, clock=fake_time.clock).score("code", ITEMS)
    assert len(server.seen) == 1


@pytest.mark.parametrize("said", [{}, {"retryable": False}, {"retryable": "yes"}])
def test_a_500_is_final(said: Any, server: Any, connect: Any, say: Any, fake_time: Any) -> None:
    server.always = say.problem(500, "inference_failed", **said)
    with pytest.raises(InferenceFailedError):
        connect(server.url, clock=fake_time.clock).score("code", ITEMS)
    assert len(server.seen) == 1


def test_a_500_that_may_pass_is_tried_again(
    server: Any, connect: Any, say: Any, fake_time: Any
) -> None:
    server.script.append(say.problem(500, retryable=True))
    assert connect(server.url, clock=fake_time.clock).score("code", ITEMS).scores == [1.0]


def test_a_lost_reply_is_asked_for_again(
    server: Any, connect: Any, say: Any, fake_time: Any
) -> None:
    server.script.append(say.answer(200, b"{", cut=5))
    assert connect(server.url, clock=fake_time.clock).score("code", ITEMS).scores == [1.0]
    assert len(server.seen) == 2


def test_the_last_failure_is_raised(server: Any, connect: Any, say: Any, fake_time: Any) -> None:
    server.always = say.problem(503)
    with pytest.raises(NotReadyError):
        connect(server.url, clock=fake_time.clock, max_retries=2).score("code", ITEMS)
    assert len(server.seen) == 3


def test_the_wait_doubles_up_to_its_cap(connect: Any, refused_url: str, fake_time: Any) -> None:
    fake_time.chance = 1.0
    with pytest.raises(APIConnectionError):
        connect(refused_url, clock=fake_time.clock, max_retries=7).score("code", ITEMS)
    assert fake_time.waits == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 8.0]


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("3", 3.0), ("0", 0.0), ("Sun, 06 Nov 1994 08:49:37 GMT", 7.0), ("Sun, 06 Nov 1994", 0.0)],
)
def test_retry_after_is_honoured(
    header: str, seconds: float, server: Any, connect: Any, say: Any, fake_time: Any
) -> None:
    fake_time.chance = 0.0
    server.script.append(say.problem(429, retry_after=header))
    connect(server.url, clock=fake_time.clock).score("code", ITEMS)
    assert sum(fake_time.waits) == seconds
    assert len(server.seen) == 2


def test_those_refused_together_do_not_return_together(
    server: Any, connect: Any, say: Any, fake_time: Any
) -> None:
    server.script.append(say.problem(429, retry_after="3"))
    connect(server.url, clock=fake_time.clock).score("code", ITEMS)
    assert fake_time.waits == [3.125]


@pytest.mark.parametrize("header", ["61", "Sun, 06 Nov 1994 09:49:37 GMT", "9" * 400])
def test_a_wait_beyond_the_deadline_is_given_up_at_once(
    header: str, server: Any, connect: Any, say: Any, fake_time: Any
) -> None:
    server.always = say.problem(429, retry_after=header)
    with pytest.raises(RateLimitError) as caught:
        connect(server.url, clock=fake_time.clock).score("code", ITEMS)
    assert caught.value.retry_after > 60
    assert caught.value.retryable is True
    assert fake_time.waits == []
    assert len(server.seen) == 1


@pytest.mark.parametrize("header", ["soon", "-3", "inf", "nan", "1e3", ""])
def test_a_senseless_retry_after_is_ignored(
    header: str, server: Any, connect: Any, say: Any, fake_time: Any
) -> None:
    server.script.append(say.problem(503, retry_after=header))
    connect(server.url, clock=fake_time.clock).score("code", ITEMS)
    assert fake_time.waits == [0.125]


def test_the_deadline_covers_all_attempts(
    server: Any, connect: Any, say: Any, fake_time: Any
) -> None:
    server.always = say.problem(429, retry_after="4")
    with pytest.raises(RateLimitError):
        connect(server.url, clock=fake_time.clock, max_retries=9).score("code", ITEMS, timeout=10)
    remaining = [int(seen.headers["x-assay-timeout-ms"]) for seen in server.seen]
    assert remaining == [10_000, 5_875, 1_750]


def test_the_deadline_covers_all_parts(server: Any, connect: Any, say: Any, fake_time: Any) -> None:
    def slow(seen: Any) -> Any:
        fake_time.now += 11.0
        return say.json(say.score_reply(seen.body["items"]))

    server.script.append(slow)
    client = connect(server.url, clock=fake_time.clock, max_items_per_request=1, timeout=10)
    with pytest.raises(APITimeoutError):
        client.score("code", ITEMS * 2)
    assert len(server.seen) == 1


def test_a_long_deadline_stays_within_what_the_server_takes(server: Any, connect: Any) -> None:
    connect(server.url, timeout=1e6).score("code", ITEMS)
    assert server.seen[0].headers["x-assay-timeout-ms"] == "3600000"


def test_one_request_id_for_all_attempts_of_a_call(
    server: Any, connect: Any, say: Any, fake_time: Any
) -> None:
    server.script.extend([say.problem(503), say.problem(503)])
    client = connect(server.url, clock=fake_time.clock)
    client.score("code", ITEMS)
    client.score("code", ITEMS)
    ids = [seen.headers["x-request-id"] for seen in server.seen]
    assert len(ids) == 4
    assert len(set(ids[:3])) == 1
    assert ids[3] != ids[0]


def _attempts(calls: Calls, answers: Iterator[Reply]) -> int:
    """How many requests one call makes, if these are the replies and nobody waits."""
    steps = calls.models()
    reply, sent = None, 0
    with contextlib.suppress(StopIteration, NotReadyError, RateLimitError):
        while True:
            step = steps.send(reply)
            reply = next(answers) if isinstance(step, Send) else None
            sent += isinstance(step, Send)
    return sent


@pytest.fixture
def calls(fake_time: Any) -> Calls:
    fake_time.chance = 0.0
    config = Config(("http://any",), None, timeout=60, max_retries=1500, max_items_per_request=1)
    return Calls(config, fake_time.clock)


DOWN = Reply(503, {}, b"")
BUSY = Reply(429, {"retry-after": "0"}, b"")
FINE = Reply(200, {}, b'{"models": []}')


def test_retries_stop_multiplying_when_nothing_succeeds(calls: Calls) -> None:
    assert _attempts(calls, repeat(DOWN)) == 1001
    assert _attempts(calls, repeat(DOWN)) == 1


def test_successes_fill_the_budget_again(calls: Calls) -> None:
    assert _attempts(calls, repeat(DOWN)) == 1001
    assert [_attempts(calls, repeat(FINE)) for _ in range(4)] == [1, 1, 1, 1]
    assert _attempts(calls, repeat(DOWN)) == 3


def test_what_the_server_asks_for_costs_no_budget(calls: Calls) -> None:
    assert _attempts(calls, repeat(BUSY)) == 1501
    assert _attempts(calls, repeat(DOWN)) == 1001


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf")])
def test_a_deadline_is_a_positive_number(timeout: float, server: Any, connect: Any) -> None:
    with pytest.raises(ValueError, match="timeout"):
        connect(server.url).score("code", ITEMS, timeout=timeout)
    with pytest.raises(ValueError, match="timeout"):
        connect(server.url, timeout=timeout)
