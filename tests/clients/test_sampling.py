"""Sampling that stops when the server is sure."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from assay_client import AsyncClient, draw_until_sure, draw_until_sure_async


def drawer(*values: float) -> Callable[[int], Sequence[dict[str, float]]]:
    left = [{"value": value} for value in values]

    def draw(count: int) -> Sequence[dict[str, float]]:
        drawn = left[:count]
        del left[:count]
        return drawn

    return draw


def sample(client: Any, model: str, draw: Any, **chosen: Any) -> Any:
    """`draw_until_sure`, in the kind that the client is of."""
    if not isinstance(client.client, AsyncClient):
        return draw_until_sure(client, model, draw, **chosen)

    async def draw_later(count: int) -> Any:
        return draw(count)

    return client._run(draw_until_sure_async(client.client, model, draw_later, **chosen))


@pytest.fixture
def sure_above(server: Any, say: Any) -> Callable[[float], None]:
    """A server that is sure of a best of so much."""

    def script(least: float) -> None:
        def answer(seen: Any) -> Any:
            reply = say.best_reply(seen.body)
            is_sure = reply["results"][reply["best"]]["score"] >= least
            reply["ranking"][0]["confidence"] = 0.9 if is_sure else 0.5
            if not is_sure:
                reply |= {"best": None, "abstained": True}
            return say.json(reply)

        server.always = answer

    return script


def test_it_stops_as_soon_as_the_server_is_sure(
    server: Any, connect: Any, sure_above: Callable[[float], None]
) -> None:
    sure_above(3)
    draw = drawer(1, 2, 3, 1, 9, 9)
    best, drawn = sample(
        connect(server.url), "code", draw, min_confidence=0.8, at_once=2, prompt="p"
    )
    assert [one["value"] for one in drawn] == [1, 2, 3, 1]
    assert best.best == 2
    assert [len(seen.body["candidates"]) for seen in server.seen] == [2, 4]
    assert server.seen[0].body["prompt"] == "p"


def test_it_gives_up_at_the_most(
    server: Any, connect: Any, sure_above: Callable[[float], None]
) -> None:
    sure_above(99)
    draw = drawer(*range(1, 9))
    best, drawn = sample(connect(server.url), "code", draw, min_confidence=0.8, most=5, at_once=3)
    assert (best.best, best.ranking[0].index, len(drawn)) == (None, 4, 5)


def test_it_gives_up_where_there_is_no_more(
    server: Any, connect: Any, sure_above: Callable[[float], None]
) -> None:
    sure_above(99)
    client = connect(server.url)
    best, drawn = sample(client, "code", drawer(1), min_confidence=0.8, at_once=3)
    assert (best.best, len(drawn)) == (None, 1)
    with pytest.raises(ValueError, match="no candidate"):
        sample(client, "code", drawer(), min_confidence=0.8)
