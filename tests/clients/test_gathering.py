"""Small calls that are in the air at once travel together, and nobody pays for his neighbour."""

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
    InvalidRequestError,
    ItemFailedError,
    NotReadyError,
    ProtocolError,
    RateLimitError,
)
from assay_client._transport.gathering import _AT_ONCE, MOST_ITEMS

Unlucky = APIConnectionError | NotReadyError

# The HTTP library leaves the connection of a request that was given up to the collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """What the collector complains of is said here, and not in another test."""
    yield
    gc.collect()


def items_of(server: Any) -> list[list[dict[str, Any]]]:
    return [seen.body["items"] for seen in server.seen]


async def settled(asked: list[Coroutine[Any, Any, Any]]) -> list[Any]:
    async with asyncio.timeout(60):
        return await asyncio.gather(*asked, return_exceptions=True)


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 there is no event to wait for
            await asyncio.sleep(0.005)


class Gate:
    """A server whose replies wait until the test lets them go."""

    def __init__(self, server: Any, say: Any) -> None:
        self.opened = threading.Event()
        server.always = lambda seen: self._answer(say, seen)

    def _answer(self, say: Any, seen: Any) -> Any:
        assert self.opened.wait(20)
        return say.usual(seen)


@pytest.fixture
def gate(server: Any, say: Any) -> Any:
    gate = Gate(server, say)
    yield gate
    gate.opened.set()


async def test_ten_thousand_calls_become_few_requests(server: Any) -> None:
    async with AsyncClient(server.url, gather=True) as client:
        scores = await settled([client.score_one("code", {"value": i}) for i in range(10_000)])
    assert scores == [float(i) for i in range(10_000)]
    assert len(server.seen) == 157 <= 400  # of 64 items, the last of 16
    assert sorted(one["value"] for sent in items_of(server) for one in sent) == list(range(10_000))
    assert max(map(len, items_of(server))) == MOST_ITEMS


async def test_without_the_option_each_call_is_a_request(server: Any) -> None:
    async with AsyncClient(server.url) as client:
        await settled([client.score_one("code", {"value": i}) for i in range(20)])
    assert len(server.seen) == 20


async def test_a_lone_caller_waits_for_nobody(server: Any, fake_time: Any) -> None:
    async with AsyncClient(server.url, gather=True, clock=fake_time.clock) as client:
        for value in range(5):
            assert await client.score_one("code", {"value": value}) == value
    assert items_of(server) == [[{"value": value}] for value in range(5)]
    assert fake_time.waits == []


async def test_what_comes_while_requests_are_under_way_gathers(server: Any, gate: Gate) -> None:
    async with AsyncClient(server.url, gather=True) as client:
        tasks = []
        for value in range(_AT_ONCE):
            tasks.append(asyncio.create_task(client.score_one("code", {"value": value})))
            await until(lambda: len(server.seen) == len(tasks))
        more = [asyncio.create_task(client.score_one("code", {"value": i})) for i in range(100)]
        await turns(20)
        assert len(server.seen) == _AT_ONCE
        gate.opened.set()
        assert await asyncio.gather(*more) == [float(i) for i in range(100)]
        assert await asyncio.gather(*tasks) == [float(i) for i in range(_AT_ONCE)]
    assert sorted(map(len, items_of(server))) == [1] * _AT_ONCE + [36, 64]


async def test_only_what_agrees_travels_together(server: Any) -> None:
    terms = [
        {"model": model, "options": options, "run": run, "priority": priority}
        for model in ("code", "code@1")
        for options in (None, {"truncation": "left"})
        for run in (None, {"id": "r", "step": 1}, {"id": "r", "step": 2})
        for priority in (None, "bulk")
    ]
    asked = [(term, 100 * place + i) for place, term in enumerate(terms) for i in range(5)]
    random.Random(1).shuffle(asked)
    async with AsyncClient(server.url, gather=True) as client:
        scores = await settled([client.score_one(item={"value": i}, **term) for term, i in asked])
    assert scores == [float(i) for _, i in asked]
    assert len(server.seen) == len(terms)
    for seen in server.seen:
        (place,) = {one["value"] // 100 for one in seen.body["items"]}
        sent = {name: seen.body.get(name) for name in ("model", "options", "run")}
        assert terms[place] == {**sent, "priority": seen.headers.get("x-assay-priority")}


async def test_long_lists_and_long_items_go_their_own_way(server: Any) -> None:
    async with AsyncClient(server.url, gather=True) as client:
        long = client.score("code", [{"value": i} for i in range(MOST_ITEMS + 1)])
        small = [client.score("code", [{"value": i}, {"value": -i}]) for i in range(3)]
        heavy = [client.score_one("code", {"value": i, "text": "x" * 700_000}) for i in range(3)]
        replies = await settled([long, *small, *heavy])
    assert replies[0].scores == [float(i) for i in range(MOST_ITEMS + 1)]
    assert [reply.scores for reply in replies[1:4]] == [[0.0, 0.0], [1.0, -1.0], [2.0, -2.0]]
    assert replies[4:] == [0.0, 1.0, 2.0]
    assert sorted(map(len, items_of(server))) == [1, 1, 7, MOST_ITEMS + 1]


async def test_the_reply_is_the_one_that_the_call_would_have_got_alone(server: Any) -> None:
    items = [{"id": "a", "group": "p", "value": 1}, {"id": "b", "group": "p", "value": 2}]
    async with AsyncClient(server.url) as client:
        alone = await client.score("code", items)
    async with AsyncClient(server.url, gather=True) as client:
        others = [client.score_one("code", {"value": i, "group": f"o{i}"}) for i in range(9)]
        *_, gathered = await settled([*others, client.score("code", items)])
    assert len(server.seen) == 2
    assert gathered == alone


async def test_two_calls_that_name_one_group_are_kept_apart(server: Any) -> None:
    calls = [[{"group": f"p{i % 4}", "value": i}, {"group": f"p{i % 4}"}] for i in range(12)]
    async with AsyncClient(server.url, gather=True) as client:
        asked = [client.score("code", call, on_error="none") for call in calls]
        replies = await settled(asked)
    for place, reply in enumerate(replies):
        assert reply.scores == [float(place), None]
        assert [(group.group, group.n) for group in reply.groups] == [(f"p{place % 4}", 2)]
    for sent in items_of(server):
        names = [one["group"] for one in sent]
        assert len(names) == 2 * len(set(names))
    assert len(server.seen) == 3


class TestOneBadItem:
    async def test_without_a_score_it_fails_its_caller(self, server: Any) -> None:
        async with AsyncClient(server.url, gather=True) as client:
            asked = [client.score_one("code", {"value": i or None}) for i in range(5)]
            failed, *scores = await settled([*asked, client.score("code", [{}], on_error="none")])
        assert len(server.seen) == 1
        assert isinstance(failed, ItemFailedError)
        assert (failed.index, len(failed.reply.results)) == (0, 1)
        assert failed.request_id == server.seen[0].headers["x-request-id"]
        assert scores[:4] == [1.0, 2.0, 3.0, 4.0]
        assert scores[4].scores == [None]

    async def test_that_cannot_be_written_never_leaves(self, server: Any) -> None:
        async with AsyncClient(server.url, gather=True) as client:
            values = [1.0, float("nan"), object(), 2.0]
            scores = await settled([client.score_one("code", {"value": one}) for one in values])
        assert [scores[0], scores[3]] == [1.0, 2.0]
        for error in scores[1:3]:
            assert isinstance(error, ValueError)
            assert "items[0] cannot be written" in str(error)
        assert items_of(server) == [[{"value": 1.0}, {"value": 2.0}]]

    @pytest.mark.parametrize("status", [400, 413, 422, 500])
    async def test_that_spoils_its_request_is_found(
        self, status: int, server: Any, say: Any
    ) -> None:
        def refuse(seen: Any) -> Any:
            spoilt = any(one["value"] == 17 for one in seen.body["items"])
            return say.problem(status, "spoilt") if spoilt else say.usual(seen)

        server.always = refuse
        async with AsyncClient(server.url, gather=True) as client:
            scores = await settled([client.score_one("code", {"value": i}) for i in range(64)])
        error = scores.pop(17)
        assert error.status == status
        assert scores == [float(i) for i in range(64) if i != 17]
        assert len(server.seen) == 1 + 2 * 6  # 64 = 2 ** 6, halved until it stood alone

    async def test_with_a_reply_that_is_none_is_found(self, server: Any, say: Any) -> None:
        def lie(seen: Any) -> Any:
            reply = say.score_reply(seen.body["items"])
            for one in reply["results"]:
                one["score"] = "high" if one["score"] == 3 else one["score"]
            return say.json(reply)

        server.always = lie
        async with AsyncClient(server.url, gather=True) as client:
            scores = await settled([client.score_one("code", {"value": i}) for i in range(8)])
        assert isinstance(scores.pop(3), ProtocolError)
        assert scores == [0.0, 1.0, 2.0, 4.0, 5.0, 6.0, 7.0]


async def test_who_is_refused_gets_an_error_of_his_own(
    server: Any, say: Any, fake_time: Any
) -> None:
    server.always = say.problem(429, "overloaded", retry_after="3")
    options: Any = {"gather": True, "clock": fake_time.clock, "max_retries": 2}
    async with AsyncClient(server.url, **options) as client:
        errors = await settled([client.score_one("code", {"value": i}) for i in range(100)])
    assert all(type(error) is RateLimitError and error.retry_after == 3.0 for error in errors)
    assert len({id(error) for error in errors}) == 100
    assert all(error.request_id in str(error) for error in errors)
    assert len(server.seen) == 2 * 3
    assert {error.request_id for error in errors} == {
        seen.headers["x-request-id"] for seen in server.seen
    }


async def test_nobody_is_there(refused_url: str, fake_time: Any) -> None:
    async with AsyncClient(refused_url, gather=True, clock=fake_time.clock) as client:
        errors = await settled([client.score_one("code", {"value": i}) for i in range(10)])
    assert all(isinstance(error, APIConnectionError) for error in errors)
    assert len(fake_time.waits) == 4


async def test_each_has_his_own_deadline(server: Any, gate: Gate) -> None:
    async with AsyncClient(server.url, gather=True) as client:
        patient = asyncio.create_task(client.score_one("code", {"value": 2}, timeout=30))
        with pytest.raises(APITimeoutError, match=r"not over after 0.05 s"):
            await client.score_one("code", {"value": 1}, timeout=0.05)
        assert not patient.done()
        gate.opened.set()
        assert await patient == 2.0
    assert len(server.seen) == 1
    assert int(server.seen[0].headers["x-assay-timeout-ms"]) > 20_000


async def test_who_leaves_takes_nobody_along(server: Any, gate: Gate) -> None:
    async with AsyncClient(server.url, gather=True) as client:
        tasks = [asyncio.create_task(client.score_one("code", {"value": i})) for i in range(20)]
        await turns(1)
        tasks[0].cancel()  # before it was sent
        await until(lambda: bool(server.seen))
        for task in tasks[1:10]:
            task.cancel()  # while it is under way
        await turns(3)
        gate.opened.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(one, asyncio.CancelledError) for one in found[:10])
    assert found[10:] == [float(i) for i in range(10, 20)]
    assert len(server.seen) == 1


async def test_a_request_that_nobody_awaits_is_given_up(server: Any, gate: Gate) -> None:
    before = asyncio.all_tasks()
    async with AsyncClient(server.url, gather=True) as client:
        tasks = [asyncio.create_task(client.score_one("code", {"value": i})) for i in range(5)]
        await until(lambda: bool(server.seen))
        for task in tasks:
            task.cancel()
        await until(lambda: asyncio.all_tasks() <= before)
        assert not client._gatherers[asyncio.get_running_loop()]._bulks


async def test_who_still_waits_when_it_is_closed_is_told(server: Any, gate: Gate) -> None:
    client = AsyncClient(server.url, gather=True)
    count = MOST_ITEMS * (_AT_ONCE + 1)
    tasks = [asyncio.create_task(client.score_one("code", {"value": i})) for i in range(count)]
    await until(lambda: len(server.seen) == _AT_ONCE)
    await client.aclose()
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(one, RuntimeError) and "closed" in str(one) for one in errors)
    with pytest.raises(RuntimeError, match="closed"):
        await client.score_one("code", {"value": 1})


def test_a_pickled_client_gathers_too(server: Any) -> None:
    client = pickle.loads(pickle.dumps(AsyncClient(server.url, gather=True)))

    async def score() -> list[Any]:
        async with client:
            return await settled([client.score_one("code", {"value": i}) for i in range(9)])

    assert asyncio.run(score()) == [float(i) for i in range(9)]
    assert len(server.seen) == 1


def test_one_client_in_one_loop_after_another(server: Any) -> None:
    client = AsyncClient(server.url, gather=True)
    for value in range(3):
        assert asyncio.run(client.score_one("code", {"value": value})) == value
    assert len(client._gatherers) == 1


def stormy(say: Any, chance: random.Random) -> Callable[[Any], Any]:
    """A server that cuts replies short, is not ready, and refuses requests with a -1 in them."""

    def answer(seen: Any) -> Any:
        if any(one.get("value") == -1 for one in seen.body["items"]):
            return say.problem(422, "invalid_request")
        usual, fate = say.usual(seen), chance.random()
        if fate < 0.1:
            return say.answer(200, usual.body[:-9], usual.headers, cut=9)
        return say.problem(503, "model_not_ready") if fate < 0.2 else usual

    return answer


def check(value: int | None, outcome: Any, *, left: bool) -> bool:
    """Whether the caller got his own score. If not, the error must be one that may be his."""
    if isinstance(outcome, asyncio.CancelledError):
        assert left
    elif isinstance(outcome, AssayError):
        kinds = {-1: InvalidRequestError, None: ItemFailedError}
        assert isinstance(outcome, kinds.get(value, NotReadyError) | Unlucky)
    else:
        assert outcome == value
    return isinstance(outcome, float)


@pytest.mark.parametrize("seed", range(4))
async def test_a_random_program_of_callers(seed: int, start: Any, say: Any, fake_time: Any) -> None:
    """Whatever servers and callers do: each caller has his own score, or an error that is his."""
    chance = random.Random(seed)
    servers = [start() for _ in range(2)]
    for number, server in enumerate(servers):
        server.always = stormy(say, random.Random(seed + 100 * number))
    urls = [server.url for server in servers]
    async with AsyncClient(urls, gather=True, clock=fake_time.clock, max_retries=9) as client:

        async def ask(value: int | None) -> Any:
            await turns(chance.randrange(4))
            options = chance.choice((None, {"truncation": "left"}))
            item = {"value": value, "group": chance.choice((*"pqrstuvw", None))}
            return await client.score_one(chance.choice(("code", "nli")), item, options=options)

        values = [chance.choice((-1, None, *range(30))) for _ in range(600)]
        tasks = [asyncio.create_task(ask(value)) for value in values]
        gone = set(chance.sample(range(600), 80))
        await turns(2)
        for place in gone:
            tasks[place].cancel()
            await turns(chance.randrange(2))
        async with asyncio.timeout(60):
            found = await asyncio.gather(*tasks, return_exceptions=True)
    pairs = enumerate(zip(values, found, strict=True))
    assert sum(check(*pair, left=place in gone) for place, pair in pairs) > 400
