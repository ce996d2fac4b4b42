"""Mutated requests of every scoring route, from a seed, and a caller that needs no socket."""

import asyncio
import copy
import json
import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from starlette.types import ASGIApp, Message

from support.scoring_routes import SCORING, Scoring

BODIES = [
    *SCORING,
    Scoring(
        "/v1/score?",
        {
            "model": "scripted",
            "items": [
                {"id": "a", "group": "g", "text": "one"},
                {"messages": [{"role": "user", "content": "a"}], "group": "g"},
                {"prompt": [{"role": "user", "content": "a"}], "response": "b", "calls": 1},
            ],
            "options": {"truncation": "left", "raw": True, "on_error": {"substitute": 0}},
            "run": {"id": "exp", "step": 1, "split": "train"},
        },
    ),
    Scoring(
        "/v1/best-of-n?", {"model": "scripted", "candidates": ["a", {"text": "b"}], "top_n": 1}
    ),
    Scoring("/v1/rerank?", {"query": "q", "documents": ["a", {"text": "b"}], "top_n": 2}),
    Scoring("/rerank?", {"query": "q", "texts": ["a", "bb"], "return_text": True}),
    Scoring("/predict?", {"inputs": [["a", "b"], ["c"]], "parameters": {"top_k": 1}}),
    Scoring("/classify?", {"input": ["a", "b"], "truncate_prompt_tokens": -1}),
    Scoring("/v1/runs/exp/telemetry", {"step": 0, "values": {"entropy": 1.0}}),
    Scoring("/v1/runs/exp/gold", {"step": 0, "items": [{"prompt": "p", "proxy": 1, "gold": 0}]}),
]

# Texts that stand for what `json.dumps` cannot write, and are replaced after it.
RAW = {
    "@deep": "[" * 600 + "]" * 600,
    "@deeper": '{"a":' * 1_500 + "1" + "}" * 1_500,
    "@huge": "9" * 400,
    "@infinite": "1e999",
    "@digits": "1" * 5_000,
    "@twice": '{"text":"a","text":null}',
}
JUNK: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    2**63,
    2**64,
    -(2**70),
    1.5,
    -1e308,
    float("NaN"),
    float("-inf"),
    "",
    " ",
    "scripted",
    "\ud83d",
    "a\udc00b",
    "\x00",
    "\u202e\ufeff\ufdd0",
    "<|im_end|>",
    "x" * 5_000,
    "é" * 300,
    [],
    {},
    [None],
    [[]],
    {"": None},
    {"\ud800": 1},
    [1, "a", {}],
    {"role": "assistant", "content": None, "tool_calls": [{"function": {"arguments": "{"}}]},
    [{"role": "user", "content": None}, {"role": "assistant", "content": [{"type": "image"}]}],
    [{"type": "text", "text": "part"}],
    *RAW,
)
NAMES = (
    "model", "items", "text", "text_pair", "prompt", "response", "messages", "query", "documents",
    "texts", "input", "inputs", "label", "labels", "prompts", "options", "run", "top_n", "id",
    "group", "role", "content", "tool_calls", "name", "user", "truncate", "raw_scores", "unknown",
    "", "\u0130", "\ud83d", "a.b", "__proto__", "🦜",
)  # fmt: skip
QUERIES = (
    "truncation=left", "truncation=top", "model=scripted", "model=other", "run=a",
    "run=a&step=1", "step=1", "step=-1&run=a", "stpe=1", "model=", "truncation", "run=%00", "&&=",
    "run=%ff", "step=9e9&run=a",
)  # fmt: skip
TYPES = (b"application/json",) * 40 + (b"", b"text/plain", b"a/b+json", b"application/json; x=\xff")
HEADERS = (
    (b"x-assay-timeout-ms", b"0"),
    (b"x-assay-timeout-ms", b"60000"),
    (b"x-assay-timeout-ms", b"\xff"),
    (b"x-assay-priority", b"bulk"),
    (b"x-assay-priority", b"first"),
    (b"x-assay-run", b"exp"),
    (b"x-assay-run", b"\xc3\xa9"),
    (b"x-assay-step", b"1"),
    (b"x-assay-step", b"x"),
    (b"x-assay-split", b""),
)


class FuzzedRequest(NamedTuple):
    """A request; `body` is its value before it was written, None if the bytes are no JSON."""

    path: str
    query: str
    headers: list[tuple[bytes, bytes]]
    content: bytes
    body: Any


class Reply(NamedTuple):
    """The reply to a request."""

    status: int
    headers: dict[bytes, bytes]
    content: bytes


def fuzzed_requests(seed: int, count: int) -> Iterator[FuzzedRequest]:
    """Yield requests whose bodies, headers and URLs are mutations of valid ones."""
    source = random.Random(seed)
    for _ in range(count):
        scoring = source.choice(BODIES)
        body: Any = copy.deepcopy(scoring.body)
        for _ in range(source.choice((0, 1, 1, 1, 2))):
            body = _mutated(source, body)
        text = json.dumps(body)
        for name, raw in RAW.items():
            text = text.replace(f'"{name}"', raw)
        content = text.encode()
        is_broken = source.random() < 0.1
        if is_broken:
            content = source.choice(BREAKS)(source, content)
        headers = [(b"content-type", source.choice(TYPES))]
        if source.random() < 0.15:
            headers.append(source.choice(HEADERS))
        path = scoring.route.rstrip("?")
        query = source.choice(QUERIES) if source.random() < 0.3 else ""
        yield FuzzedRequest(path, query, headers, content, None if is_broken else body)


async def call(app: ASGIApp, request: FuzzedRequest) -> Reply:
    """Return the app's reply to a request."""
    status, headers, parts = 0, {}, []
    pending: list[Message] = [{"type": "http.request", "body": request.content}]

    async def receive() -> Message:
        if not pending:
            await asyncio.Event().wait()  # the client stays connected
        return pending.pop()

    async def send(message: Message) -> None:
        nonlocal status, headers
        if message["type"] == "http.response.start":
            status, headers = message["status"], dict(message["headers"])
        else:
            parts.append(message.get("body", b""))

    length = (b"content-length", str(len(request.content)).encode())
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": request.path,
        "raw_path": request.path.encode(),
        "root_path": "",
        "query_string": request.query.encode(),
        "headers": [*request.headers, length],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    await app(scope, receive, send)
    return Reply(status, headers, b"".join(parts))


def _mutated(source: random.Random, body: Any) -> Any:
    places = list(_places(body))
    if not places or source.random() < 0.02:
        return source.choice(JUNK)
    holder, key = source.choice(places)
    kind = source.random()
    if kind < 0.6:
        holder[key] = copy.deepcopy(source.choice(JUNK))
    elif kind < 0.7:
        del holder[key]
    elif isinstance(holder, dict):
        holder[source.choice(NAMES)] = copy.deepcopy(source.choice(JUNK))
    else:
        holder.insert(key, copy.deepcopy(source.choice((*JUNK, *holder))))
    return body


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield value, key
            yield from _places(part)
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield value, index
            yield from _places(part)


def _cut(source: random.Random, content: bytes) -> bytes:
    return content[: source.randrange(len(content) or 1)]


def _flipped(source: random.Random, content: bytes) -> bytes:
    changed = bytearray(content or b" ")
    for _ in range(source.randint(1, 4)):
        changed[source.randrange(len(changed))] = source.randrange(256)
    return bytes(changed)


BREAKS: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    _cut,
    _flipped,
    lambda source, content: content * 2,
    lambda source, content: content + b" NaN",
    lambda source, content: b"\xef\xbb\xbf" + content,
    lambda source, content: content.decode().encode("utf-16"),
    lambda source, content: source.randbytes(40),
)
