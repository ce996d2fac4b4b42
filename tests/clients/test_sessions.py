"""Session ids: one prompt has one id, which does not give the prompt away."""

import asyncio
import pickle
import re
from hashlib import blake2b
from typing import Any

import pytest

from assay_client import AsyncClient, Client
from assay_client._transport.sessions import Sessions

PROMPT = "Reverse a string."
CHAT = [{"role": "user", "content": PROMPT}]


def id_of(*items: dict[str, Any], key: str | None = None) -> str | None:
    return Sessions(key).id_of(items)


class Array:
    """An array of another library: it compares element by element."""

    def __init__(self, values: list[Any]) -> None:
        self.values = values

    def tolist(self) -> list[Any]:
        return self.values

    def __eq__(self, other: object) -> Any:
        raise ValueError("the truth value of an array is ambiguous")

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"prompt": PROMPT, "response": "a"}, {"prompt": PROMPT, "response": "b", "group": "g"}),
        ({"prompt": CHAT}, {"prompt": [dict(CHAT[0])]}),
        ({"prompt": CHAT}, {"prompt": Array(CHAT)}),
        ({"premise": "p", "hypothesis": "a"}, {"premise": "p", "hypothesis": "b"}),
        ({"evidence": ["p", "q"], "response": "a"}, {"evidence": ["p", "q"], "response": "b"}),
        (
            {"messages": [*CHAT, {"role": "assistant", "content": "a"}]},
            {"messages": [*CHAT, {"role": "assistant", "content": "b"}]},
        ),
        ({"response": "a", "group": "g"}, {"response": "b", "group": "g"}),
    ],
)
def test_items_of_one_prompt_have_its_id_alone_and_together(
    first: dict[str, Any], second: dict[str, Any]
) -> None:
    ids = {id_of(first), id_of(second), id_of(first, second), id_of(second, first)}
    assert len(ids) == 1
    assert re.fullmatch("[0-9a-f]{16}", str(ids.pop()))


@pytest.mark.parametrize(
    "items",
    [
        [{"response": "a"}],
        [{"text": "a"}],
        [{"prompt": "a"}, {"prompt": "b"}],
        [{"prompt": "a", "group": "g"}, {"prompt": "b", "group": "g"}],
        [{"prompt": "a"}, {"response": "b"}],
        [{"group": "a"}, {"group": "b"}],
        [{"messages": CHAT}],
        [{"messages": [*CHAT, *CHAT]}, {"messages": 5}],
        [{"prompt": [Array([1])]}, {"prompt": [Array([1])]}],
    ],
)
def test_items_without_a_common_prompt_have_no_id(items: list[dict[str, Any]]) -> None:
    assert id_of(*items) is None


def test_ids_of_different_prompts_differ() -> None:
    assert len({id_of({"prompt": f"prompt {number}"}) for number in range(1000)}) == 1000


def test_id_with_an_api_key_is_keyed_with_it() -> None:
    item = {"prompt": PROMPT}
    guess = blake2b(PROMPT.encode(), digest_size=8).hexdigest()
    assert id_of(item) == guess
    keyed = {id_of(item, key="k" * 16), id_of(item, key="l" * 16), id_of(item, key="k" * 200)}
    assert len(keyed | {guess}) == 4


def test_requests_carry_the_id_of_their_prompt(server: Any) -> None:
    rows = [{"prompt": PROMPT, "value": 0.1 * number} for number in range(4)]
    with Client(server.url) as client:
        client.score("code", rows)
        client.score_one("code", rows[0])
        client.best_of_n("code", [{"value": 0.5}], prompt=PROMPT)
        client.score("code", [{"prompt": f"another {number}", "value": 0.5} for number in (1, 2)])
        client.models()
    sent = [request.headers.get("x-session-id") for request in server.received]
    assert sent == [id_of({"prompt": PROMPT})] * 3 + [None] * 2
    assert PROMPT not in str([request.headers for request in server.received])


def test_parts_of_a_long_call_carry_their_own_ids(server: Any) -> None:
    rows = [{"prompt": name, "group": name, "value": 0.5} for name in "aabb"]
    with Client(server.url, max_items_per_request=2) as client:
        client.score("code", rows)
    sent = [request.headers.get("x-session-id") for request in server.received]
    assert sent == [id_of({"prompt": "a"}), id_of({"prompt": "b"})]


def test_client_without_session_ids_sends_none(server: Any) -> None:
    with Client(server.url, session_ids=False) as client:
        client.score_one("code", {"prompt": PROMPT, "value": 0.5})
        with pickle.loads(pickle.dumps(client)) as copy:
            copy.score_one("code", {"prompt": PROMPT, "value": 0.5})
    assert len(server.received) == 2
    assert all("x-session-id" not in request.headers for request in server.received)


@pytest.mark.parametrize(("prompts", "expected"), [("aaa", id_of({"prompt": "a"})), ("aab", None)])
def test_batch_of_calls_has_an_id_if_they_share_the_prompt(
    server: Any, prompts: str, expected: str | None
) -> None:
    async def score() -> None:
        async with AsyncClient(server.url, gather=True) as client:
            items = [{"prompt": prompt, "value": 0.5} for prompt in prompts]
            await asyncio.gather(*(client.score_one("code", item) for item in items))

    asyncio.run(score())
    (request,) = server.received
    assert len(request.body["items"]) == 3
    assert request.headers.get("x-session-id") == expected
