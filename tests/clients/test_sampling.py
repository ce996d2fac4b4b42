"""Sampling that stops when the server is confident."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from assay_client import AsyncClient, best_of_n_until_confident, best_of_n_until_confident_async


def drawer(*values: float) -> Callable[[int], Sequence[dict[str, float]]]:
    """Return a `draw` function that returns these values in order."""
    left = [{"value": value} for value in values]

    def draw(count: int) -> Sequence[dict[str, float]]:
        drawn = left[:count]
        del left[:count]
        return drawn

    return draw


def sample(client: Any, model: str, draw: Any, **arguments: Any) -> Any:
    """Call `best_of_n_until_confident`, or its asynchronous form, as the client requires."""
    if not isinstance(client.client, AsyncClient):
        return best_of_n_until_confident(client, model, draw, **arguments)

    async def draw_later(count: int) -> Any:
        return draw(count)

    return client.run(
        best_of_n_until_confident_async(client.client, model, draw_later, **arguments)
    )


@pytest.fixture
def confident_from(server: Any, canned: Any) -> Callable[[float], None]:
    """A function that makes the server confident of a best score from `min_score` on."""

    def script(min_score: float) -> None:
        def answer(received: Any) -> Any:
            reply = canned.best_reply(received.body)
            is_confident = reply["results"][reply["best"]]["score"] >= min_score
            reply["ranking"][0]["confidence"] = 0.9 if is_confident else 0.5
            if not is_confident:
                reply |= {"best": None, "abstained": True}
            return canned.json(reply)

        server.always = answer

    return script


def test_sampling_stops_as_soon_as_the_server_is_confident(
    server: Any, connect: Any, confident_from: Callable[[float], None]
) -> None:
    confident_from(3)
    draw = drawer(1, 2, 3, 1, 9, 9)
    ranked, drawn = sample(
        connect(server.url), "code", draw, min_confidence=0.8, batch_size=2, prompt="p"
    )
    assert [candidate["value"] for candidate in drawn] == [1, 2, 3, 1]
    assert ranked.best == 2
    assert [len(received.body["candidates"]) for received in server.received] == [2, 4]
    assert server.received[0].body["prompt"] == "p"


def test_sampling_stops_at_max_candidates(
    server: Any, connect: Any, confident_from: Callable[[float], None]
) -> None:
    confident_from(99)
    draw = drawer(*range(1, 9))
    ranked, drawn = sample(
        connect(server.url), "code", draw, min_confidence=0.8, max_candidates=5, batch_size=3
    )
    assert (ranked.best, ranked.ranking[0].index, len(drawn)) == (None, 4, 5)


def test_sampling_stops_when_nothing_more_is_drawn(
    server: Any, connect: Any, confident_from: Callable[[float], None]
) -> None:
    confident_from(99)
    client = connect(server.url)
    ranked, drawn = sample(client, "code", drawer(1), min_confidence=0.8, batch_size=3)
    assert (ranked.best, len(drawn)) == (None, 1)
    with pytest.raises(ValueError, match="no candidate"):
        sample(client, "code", drawer(), min_confidence=0.8)


@pytest.mark.parametrize(
    ("draw", "arguments", "reason"),
    [
        (lambda count: "one text", {}, "what draw returned is a string: give a list of candidates"),
        (lambda count: None, {}, "what draw returned is None"),
        (drawer(1), {"batch_size": 0}, "batch_size must be at least 1"),
        (drawer(1), {"max_candidates": 0}, "max_candidates must be at least 1"),
    ],
)
def test_a_wrong_argument_of_sampling_is_refused_in_the_callers_words(
    draw: Any, arguments: Any, reason: str, server: Any, connect: Any
) -> None:
    with pytest.raises(ValueError, match=reason):
        sample(connect(server.url), "code", draw, min_confidence=0.8, **arguments)
    assert server.received == []
