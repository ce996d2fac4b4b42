"""The client and the service on a socket, with the family that needs no weights."""

import asyncio
import math
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest
import uvicorn
from pydantic import SecretStr

from assay.app import create_app
from assay.settings import Settings
from assay_client import (
    APITimeoutError,
    AsyncClient,
    AuthenticationError,
    Client,
    Clock,
    DeadlineExceededError,
    ItemFailedError,
    NotFoundError,
    PermissionDeniedError,
    RequestTooLargeError,
    UnprocessableEntityError,
)
from assay_models.families.reference import ReferenceModel

ITEM = {"prompt": "one two three", "response": "three two"}
OVERLAP = 0.4054651081081644  # ln(3 / 2): the response has two of the prompt's words and lacks one
LONG = {"prompt": "word " * 5000, "response": "word"}


@contextmanager
def _listening(settings: Settings) -> Iterator[str]:
    config = uvicorn.Config(create_app(settings), port=0, log_config=None, lifespan="on")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield _address(server, thread)
    finally:
        server.should_exit = True
        thread.join()


def _address(server: uvicorn.Server, thread: threading.Thread) -> str:
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        thread.join(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    return f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with _listening(Settings(models=("reference",), max_items=8)) as url:
        yield url


@pytest.fixture(scope="module")
def url_with_keys() -> Iterator[str]:
    settings = Settings(models=("reference",), api_keys=(SecretStr("right-0123456789abc"),))
    with _listening(settings) as url:
        yield url


@pytest.fixture(scope="module")
def url_without_limits() -> Iterator[str]:
    with _listening(Settings(models=("reference",))) as url:
        yield url


@pytest.fixture
def client(url: str, connect: Any) -> Any:
    client = connect(url)
    while not client.is_ready():
        pass
    return client


def test_score_returns_results_groups_and_usage(client: Any) -> None:
    reply = client.score("reference", [{**ITEM, "id": "a", "group": "p"}, {**ITEM, "group": "p"}])
    assert reply.scores == pytest.approx([OVERLAP, OVERLAP])
    assert reply.model == "reference@1"
    assert reply.results[0].channels == {"reward": reply.scores[0]}
    assert reply.results[0].tokens == 5
    (group,) = reply.groups
    assert (group.ranks, group.zero_variance) == ((1, 1), True)
    assert reply.usage.items == 2
    assert reply.timing.total_ms > 0


def test_score_one_returns_a_number(client: Any) -> None:
    assert client.score_one("reference", ITEM) == pytest.approx(OVERLAP)


def test_a_bad_item_raises_an_error_or_is_none(client: Any) -> None:
    with pytest.raises(ItemFailedError) as caught:
        client.score("reference", [ITEM, LONG])
    assert (caught.value.index, caught.value.code) == (1, "input_too_long")
    reply = client.score("reference", [ITEM, LONG], on_error="none")
    assert reply.scores == [pytest.approx(OVERLAP), None]
    assert reply.usage.failed == 1


def test_options_take_effect(client: Any) -> None:
    cut = client.score("reference", [LONG], options={"truncation": "right"})
    assert "truncated" in cut.results[0].flags
    substitute = {"on_error": {"substitute": -9.0}}
    reply = client.score("reference", [LONG], options=substitute, run={"id": "r", "step": 1})
    assert reply.scores == [-9.0]
    assert reply.results[0].status == "error"


def test_a_long_list_is_split(url: str, connect: Any) -> None:
    items = [{**ITEM, "id": str(i), "group": f"p{i % 5}"} for i in range(20)]
    reply = connect(url, max_items_per_request=8).score("reference", items)
    assert [result.id for result in reply.results] == [str(i) for i in range(20)]
    assert {group.n for group in reply.groups} == {4}
    with pytest.raises(RequestTooLargeError):
        connect(url).score("reference", items)


def test_best_of_n(client: Any) -> None:
    texts = ["nothing", "one two three", "one"]
    best = client.best_of_n("reference", texts, prompt="one two three", abstain_below=0.0)
    assert (best.best, best.abstained) == (1, False)
    assert [ranked.index for ranked in best.ranking] == [1, 2, 0]
    high = client.best_of_n("reference", texts, prompt="one two three", abstain_below=99, top_n=1)
    assert (high.best, high.abstained, len(high.ranking)) == (None, True, 1)
    options = {"on_error": {"substitute": 99.0}}
    responses = ["word " * 5000, "one"]
    kept = client.best_of_n("reference", responses, prompt="one two", options=options)
    assert (kept.best, kept.ranking[1].score) == (1, None)


def test_models_are_listed_with_their_cards(client: Any) -> None:
    (model,) = client.models()
    assert (model.id, model.version, model.default, model.state) == (
        "reference@1",
        1,
        True,
        "ready",
    )
    card = client.model("reference").card
    assert card["fingerprint"] == client.score("reference", [ITEM]).fingerprint
    assert client.is_live() is True


def test_refusals_raise_typed_errors(client: Any) -> None:
    with pytest.raises(NotFoundError) as unknown:
        client.score("no-such-model", [ITEM])
    assert unknown.value.code == "model_not_found"
    assert unknown.value.request_id is not None
    assert unknown.value.request_id in str(unknown.value)
    with pytest.raises(UnprocessableEntityError) as malformed:
        client.score("reference", [{"promt": "one"}])
    assert malformed.value.errors


def test_a_deadline_that_cannot_be_met_raises_a_timeout(client: Any) -> None:
    slow = {**ITEM, "response": "x " * 200_000}
    with pytest.raises((APITimeoutError, DeadlineExceededError)):  # either may notice first
        client.score("reference", [slow] * 8, timeout=0.01)


async def test_ten_thousand_concurrent_calls_need_few_requests(url_without_limits: str) -> None:
    pairs = [(1 + number % 40, number // 40 % 41) for number in range(10_000)]
    pairs = [(words, min(words, shared)) for words, shared in pairs]
    async with AsyncClient(url_without_limits, gather=True) as client:
        await asyncio.to_thread(_await_ready, url_without_limits)
        calls = [client.score_one("reference", _overlapping(*pair)) for pair in pairs]
        scores = await asyncio.gather(*calls)
        metrics = await asyncio.to_thread(httpx2.get, f"{url_without_limits}/metrics")
    expected = [math.log((1 + shared) / (1 + words - shared)) for words, shared in pairs]
    assert scores == pytest.approx(expected)
    counted = re.findall(r"^assay_requests_total\{(.*)\} (\S+)$", metrics.text, re.M)
    requests = sum(float(count) for labels, count in counted if "/v1/score" in labels)
    assert 0 < requests <= 400


def _await_ready(url: str) -> None:
    with Client(url) as client:
        while not client.is_ready():
            pass


def _overlapping(words: int, shared: int) -> dict[str, str]:
    """Return an item with `words` words in its prompt, `shared` of which are in its response."""
    prompt = [f"w{number}" for number in range(words)]
    return {"prompt": " ".join(prompt), "response": " ".join(prompt[:shared]) or "none"}


def test_api_keys_are_checked(url_with_keys: str, connect: Any) -> None:
    assert connect(url_with_keys, api_key="right-0123456789abc").score_one("reference", ITEM) > 0
    with pytest.raises(AuthenticationError):
        connect(url_with_keys).score("reference", [ITEM])
    with pytest.raises(PermissionDeniedError):
        connect(url_with_keys, api_key="wrong").score("reference", [ITEM])


@pytest.mark.parametrize("is_waited_for", [True, False], ids=["wait_until_ready", "score"])
def test_a_server_that_is_loading_its_model_is_waited_for(
    is_waited_for: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_load = threading.Event()
    load = ReferenceModel.load
    monkeypatch.setattr(ReferenceModel, "load", lambda *given: may_load.wait(30) and load(*given))
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        may_load.set()

    with (
        _listening(Settings(models=("reference",))) as url,
        Client(url, clock=Clock(sleep=wait)) as client,
    ):
        if is_waited_for:
            client.wait_until_ready()
        assert client.score_one("reference", ITEM) == pytest.approx(OVERLAP)
    assert waits[0] == 1.0 if is_waited_for else 2.0 <= waits[0] <= 2.25
