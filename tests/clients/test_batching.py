"""Batching of small concurrent calls; a failing item affects no other caller."""

import asyncio
import gc
import pickle
import random
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from assay_client import (
    APIConnectionError,
    APITimeoutError,
    AssayError,
    AsyncClient,
    ItemFailedError,
    NotReadyError,
    ProtocolError,
    RateLimitError,
    UnprocessableEntityError,
)
from assay_client._transport.batching import MAX_BATCH_ITEMS, MAX_IN_FLIGHT

RandomFailure = APIConnectionError | NotReadyError

# The HTTP library leaves the connection of a cancelled request to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


@pytest.fixture(autouse=True)
def _collect_garbage() -> Iterator[None]:
    """Collects garbage after each test, so that its warnings appear there and not in another."""
    yield
    gc.collect()


def items_of(server: Any) -> list[list[dict[str, Any]]]:
    """Return the items of each request that the server received."""
    return [received.body["items"] for received in server.received]


async def settle(calls: list[Coroutine[Any, Any, Any]]) -> list[Any]:
    """Run the calls concurrently; return the result or the error of each."""
    async with asyncio.timeout(60):
        return await asyncio.gather(*calls, return_exceptions=True)


async def run_iterations(count: int) -> None:
    """Let the event loop run `count` iterations."""
    for _ in range(count):
        await asyncio.sleep(0)


async def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until the condition holds."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 there is no event to wait for
            await asyncio.sleep(0.005)


class Gate:
    """A server whose replies wait until the test opens the gate."""

    def __init__(self, server: Any, canned: Any) -> None:
        self.opened = threading.Event()
        server.always = lambda received: self._answer(canned, received)

    def _answer(self, canned: Any, received: Any) -> Any:
        assert self.opened.wait(20)
        return canned.default_answer(received)


@pytest.fixture
def gate(server: Any, canned: Any) -> Any:
    gate = Gate(server, canned)
    yield gate
    gate.opened.set()


async def test_ten_thousand_calls_become_few_requests(server: Any) -> None:
    async with AsyncClient(server.url, gather=True) as client:
        scores = await settle([client.score_one("code", {"value": i}) for i in range(10_000)])
    assert scores == [float(i) for i in range(10_000)]
    assert len(server.received) == 157 <= 400  # of 64 items each, the last of 16
    assert sorted(item["value"] for items in items_of(server) for item in items) == list(
        range(10_000)
    )
    assert max(map(len, items_of(server))) == MAX_BATCH_ITEMS


async def test_without_the_option_each_call_is_a_request(server: Any) -> None:
    async with AsyncClient(server.url) as client:
        await settle([client.score_one("code", {"value": i}) for i in range(20)])
    assert len(server.received) == 20


async def test_a_single_call_is_sent_without_a_wait(server: Any, fake_clock: Any) -> None:
    async with AsyncClient(server.url, gather=True, clock=fake_clock.clock) as client:
        for value in range(5):
            assert await client.score_one("code", {"value": value}) == value
    assert items_of(server) == [[{"value": value}] for value in range(5)]
    assert fake_clock.waits == []


async def test_calls_made_while_batches_are_in_flight_share_the_next_batch(
    server: Any, gate: Gate
) -> None:
    async with AsyncClient(server.url, gather=True) as client:
        tasks = []
        for value in range(MAX_IN_FLIGHT):
            tasks.append(asyncio.create_task(client.score_one("code", {"value": value})))
            await wait_until(lambda: len(server.received) == len(tasks))
        more = [asyncio.create_task(client.score_one("code", {"value": i})) for i in range(100)]
        await run_iterations(20)
        assert len(server.received) == MAX_IN_FLIGHT
        gate.opened.set()
        assert await asyncio.gather(*more) == [float(i) for i in range(100)]
        assert await asyncio.gather(*tasks) == [float(i) for i in range(MAX_IN_FLIGHT)]
    assert sorted(map(len, items_of(server))) == [1] * MAX_IN_FLIGHT + [36, 64]


async def test_calls_share_a_batch_only_if_their_options_agree(server: Any) -> None:
    keys: list[dict[str, Any]] = [
        {"model": model, "options": options, "run": run, "priority": priority}
        for model in ("code", "code@1")
        for options in (None, {"truncation": "left"})
        for run in (None, {"id": "r", "step": 1}, {"id": "r", "step": 2})
        for priority in (None, "bulk")
    ]
    calls = [(key, 100 * place + i) for place, key in enumerate(keys) for i in range(5)]
    random.Random(1).shuffle(calls)
    async with AsyncClient(server.url, gather=True) as client:
        scores = await settle([client.score_one(item={"value": i}, **key) for key, i in calls])
    assert scores == [float(i) for _, i in calls]
    assert len(server.received) == len(keys)
    for received in server.received:
        (place,) = {item["value"] // 100 for item in received.body["items"]}
        sent = {name: received.body.get(name) for name in ("model", "options", "run")}
        assert keys[place] == {**sent, "priority": received.headers.get("x-assay-priority")}


async def test_long_lists_and_long_items_are_not_batched(server: Any) -> None:
    async with AsyncClient(server.url, gather=True) as client:
        long = client.score("code", [{"value": i} for i in range(MAX_BATCH_ITEMS + 1)])
        small = [client.score("code", [{"value": i}, {"value": -i}]) for i in range(3)]
        heavy = [client.score_one("code", {"value": i, "text": "x" * 700_000}) for i in range(3)]
        replies = await settle([long, *small, *heavy])
    assert replies[0].scores == [float(i) for i in range(MAX_BATCH_ITEMS + 1)]
    assert [reply.scores for reply in replies[1:4]] == [[0.0, 0.0], [1.0, -1.0], [2.0, -2.0]]
    assert replies[4:] == [0.0, 1.0, 2.0]
    assert sorted(map(len, items_of(server))) == [1, 1, 7, MAX_BATCH_ITEMS + 1]


async def test_a_batched_reply_equals_the_reply_of_a_single_call(server: Any) -> None:
    items = [{"id": "a", "group": "p", "value": 1}, {"id": "b", "group": "p", "value": 2}]
    async with AsyncClient(server.url) as client:
        alone = await client.score("code", items)
    async with AsyncClient(server.url, gather=True) as client:
        others = [client.score_one("code", {"value": i, "group": f"o{i}"}) for i in range(9)]
        *_, gathered = await settle([*others, client.score("code", items)])
    assert len(server.received) == 2
    assert gathered == alone


async def test_calls_that_name_the_same_group_never_share_a_batch(server: Any) -> None:
    calls: list[list[dict[str, Any]]] = [
        [{"group": f"p{i % 4}", "value": i}, {"group": f"p{i % 4}"}] for i in range(12)
    ]
    async with AsyncClient(server.url, gather=True) as client:
        replies = await settle([client.score("code", call, on_error="none") for call in calls])
    for place, reply in enumerate(replies):
        assert reply.scores == [float(place), None]
        assert [(group.group, group.n) for group in reply.groups] == [(f"p{place % 4}", 2)]
    for items in items_of(server):
        names = [item["group"] for item in items]
        assert len(names) == 2 * len(set(names))
    assert len(server.received) == 3


class TestBadItem:
    async def test_without_a_score_fails_its_own_call(self, server: Any) -> None:
        async with AsyncClient(server.url, gather=True) as client:
            calls = [client.score_one("code", {"value": i or None}) for i in range(5)]
            failed, *scores = await settle([*calls, client.score("code", [{}], on_error="none")])
        assert len(server.received) == 1
        assert isinstance(failed, ItemFailedError)
        assert (failed.index, len(failed.reply.results)) == (0, 1)
        assert failed.request_id == server.received[0].headers["x-request-id"]
        assert scores[:4] == [1.0, 2.0, 3.0, 4.0]
        assert scores[4].scores == [None]

    async def test_that_cannot_be_encoded_is_not_sent(self, server: Any) -> None:
        async with AsyncClient(server.url, gather=True) as client:
            values = [1.0, float("nan"), object(), 2.0]
            scores = await settle([client.score_one("code", {"value": value}) for value in values])
        assert [scores[0], scores[3]] == [1.0, 2.0]
        for error in scores[1:3]:
            assert isinstance(error, ValueError)
            assert "items[0] cannot be written" in str(error)
        assert items_of(server) == [[{"value": 1.0}, {"value": 2.0}]]

    @pytest.mark.parametrize("status", [400, 413, 422, 500])
    async def test_that_fails_its_batch_is_isolated(
        self, status: int, server: Any, canned: Any
    ) -> None:
        def refuse(received: Any) -> Any:
            is_spoilt = any(item["value"] == 17 for item in received.body["items"])
            return (
                canned.problem(status, "spoilt") if is_spoilt else canned.default_answer(received)
            )

        server.always = refuse
        async with AsyncClient(server.url, gather=True) as client:
            scores = await settle([client.score_one("code", {"value": i}) for i in range(64)])
        error = scores.pop(17)
        assert error.status_code == status
        assert scores == [float(i) for i in range(64) if i != 17]
        assert len(server.received) == 1 + 2 * 6  # 64 = 2 ** 6, halved until it is alone

    async def test_with_a_malformed_result_is_isolated(self, server: Any, canned: Any) -> None:
        def malformed(received: Any) -> Any:
            reply = canned.score_reply(received.body["items"])
            for result in reply["results"]:
                result["score"] = "high" if result["score"] == 3 else result["score"]
            return canned.json(reply)

        server.always = malformed
        async with AsyncClient(server.url, gather=True) as client:
            scores = await settle([client.score_one("code", {"value": i}) for i in range(8)])
        assert isinstance(scores.pop(3), ProtocolError)
        assert scores == [0.0, 1.0, 2.0, 4.0, 5.0, 6.0, 7.0]


async def test_each_refused_call_gets_its_own_error_object(
    server: Any, canned: Any, fake_clock: Any
) -> None:
    server.always = canned.problem(429, "overloaded", retry_after="3")
    options: Any = {"gather": True, "clock": fake_clock.clock, "max_retries": 2}
    async with AsyncClient(server.url, **options) as client:
        errors = await settle([client.score_one("code", {"value": i}) for i in range(100)])
    assert all(type(error) is RateLimitError and error.retry_after == 3.0 for error in errors)
    assert len({id(error) for error in errors}) == 100
    assert all(error.request_id in str(error) for error in errors)
    assert len(server.received) == 2 * 3
    assert {error.request_id for error in errors} == {
        received.headers["x-request-id"] for received in server.received
    }


async def test_without_a_server_each_call_gets_a_connection_error(
    refused_url: str, fake_clock: Any
) -> None:
    async with AsyncClient(refused_url, gather=True, clock=fake_clock.clock) as client:
        errors = await settle([client.score_one("code", {"value": i}) for i in range(10)])
    assert all(isinstance(error, APIConnectionError) for error in errors)
    assert len(fake_clock.waits) == 4


async def test_each_call_keeps_its_own_deadline(server: Any, gate: Gate) -> None:
    async with AsyncClient(server.url, gather=True) as client:
        patient = asyncio.create_task(client.score_one("code", {"value": 2}, timeout=30))
        with pytest.raises(APITimeoutError, match=r"not over after 0.05 s"):
            await client.score_one("code", {"value": 1}, timeout=0.05)
        assert not patient.done()
        gate.opened.set()
        assert await patient == 2.0
    assert len(server.received) == 1
    assert int(server.received[0].headers["x-assay-timeout-ms"]) > 20_000


async def test_a_cancelled_call_does_not_affect_its_batch(server: Any, gate: Gate) -> None:
    async with AsyncClient(server.url, gather=True) as client:
        tasks = [asyncio.create_task(client.score_one("code", {"value": i})) for i in range(20)]
        await run_iterations(1)
        tasks[0].cancel()  # before it was sent
        await wait_until(lambda: bool(server.received))
        for task in tasks[1:10]:
            task.cancel()  # while it is under way
        await run_iterations(3)
        gate.opened.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes[:10])
    assert outcomes[10:] == [float(i) for i in range(10, 20)]
    assert len(server.received) == 1


async def test_a_batch_whose_calls_are_all_cancelled_is_cancelled(server: Any, gate: Gate) -> None:
    before = asyncio.all_tasks()
    async with AsyncClient(server.url, gather=True) as client:
        tasks = [asyncio.create_task(client.score_one("code", {"value": i})) for i in range(5)]
        await wait_until(lambda: bool(server.received))
        for task in tasks:
            task.cancel()
        await wait_until(lambda: asyncio.all_tasks() <= before)
        assert not client._batchers[asyncio.get_running_loop()]._batches


async def test_closing_the_client_fails_waiting_calls(server: Any, gate: Gate) -> None:
    client = AsyncClient(server.url, gather=True)
    count = MAX_BATCH_ITEMS * (MAX_IN_FLIGHT + 1)
    tasks = [asyncio.create_task(client.score_one("code", {"value": i})) for i in range(count)]
    await wait_until(lambda: len(server.received) == MAX_IN_FLIGHT)
    await client.aclose()
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(error, RuntimeError) and "closed" in str(error) for error in errors)
    with pytest.raises(RuntimeError, match="closed"):
        await client.score_one("code", {"value": 1})


def test_a_pickled_client_batches(server: Any) -> None:
    client = pickle.loads(pickle.dumps(AsyncClient(server.url, gather=True)))

    async def score() -> list[Any]:
        async with client:
            return await settle([client.score_one("code", {"value": i}) for i in range(9)])

    assert asyncio.run(score()) == [float(i) for i in range(9)]
    assert len(server.received) == 1


def test_a_client_can_be_used_in_one_loop_after_another(server: Any) -> None:
    client = AsyncClient(server.url, gather=True)
    for value in range(3):
        assert asyncio.run(client.score_one("code", {"value": value})) == value
    assert len(client._batchers) == 1


def failing_at_random(canned: Any, chance: random.Random) -> Callable[[Any], Any]:
    """Return a script that truncates replies, is not ready, and refuses requests with a -1."""

    def answer(received: Any) -> Any:
        if any(item.get("value") == -1 for item in received.body["items"]):
            return canned.problem(422, "invalid_request")
        whole, number = canned.default_answer(received), chance.random()
        if number < 0.1:
            return canned.answer(200, whole.body[:-9], whole.headers, cut=9)
        return canned.problem(503, "model_not_ready") if number < 0.2 else whole

    return answer


def check(value: int | None, outcome: Any, *, cancelled: bool) -> bool:
    """Return whether a caller got its own score; check that its error is possible otherwise."""
    if isinstance(outcome, asyncio.CancelledError):
        assert cancelled
    elif isinstance(outcome, AssayError):
        kinds = {-1: UnprocessableEntityError, None: ItemFailedError}
        assert isinstance(outcome, kinds.get(value, NotReadyError) | RandomFailure)
    else:
        assert outcome == value
    return isinstance(outcome, float)


@pytest.mark.parametrize("seed", range(4))
async def test_random_calls_and_failures(
    seed: int, start_server: Any, canned: Any, fake_clock: Any
) -> None:
    """Check that each caller gets its own score, or an error that its item or a server explains."""
    chance = random.Random(seed)
    servers = [start_server() for _ in range(2)]
    for number, server in enumerate(servers):
        server.always = failing_at_random(canned, random.Random(seed + 100 * number))
    urls = [server.url for server in servers]
    async with AsyncClient(urls, gather=True, clock=fake_clock.clock, max_retries=9) as client:

        async def call(value: int | None) -> Any:
            await run_iterations(chance.randrange(4))
            options = chance.choice((None, {"truncation": "left"}))
            item = {"value": value, "group": chance.choice((*"pqrstuvw", None))}
            return await client.score_one(chance.choice(("code", "nli")), item, options=options)

        values = [chance.choice((-1, None, *range(30))) for _ in range(600)]
        tasks = [asyncio.create_task(call(value)) for value in values]
        cancelled = set(chance.sample(range(600), 80))
        await run_iterations(2)
        for place in cancelled:
            tasks[place].cancel()
            await run_iterations(chance.randrange(2))
        async with asyncio.timeout(60):
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    pairs = enumerate(zip(values, outcomes, strict=True))
    assert sum(check(*pair, cancelled=place in cancelled) for place, pair in pairs) > 400
