"""Servers that speak the protocols of inference engines, and compute a known function of a row.

Their replies have the shape of recorded ones, so that numbers can be compared with the row that
they belong to.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import orjson
import uvicorn
from uvicorn.server import ServerState

LABELS = ("contradiction", "entailment", "neutral")
BAD_TOKEN = 999_999
"""A token id that no engine has in its vocabulary."""
BAD_TEXT = "refuse me"
KEY = "engine-key-1"


def logits_of(row: Sequence[int] | str, labels: int = 1) -> tuple[float, ...]:
    """Return the logits of a row: rows of other contents or of another order have other ones."""
    parts = row if not isinstance(row, str) else [ord(letter) for letter in row]
    total = sum((position + 1) * part for position, part in enumerate(parts))
    return tuple(math.sin(total + 7.0 * label) * (1 + label) for label in range(labels))


def activated(logits: Sequence[float]) -> list[float]:
    """Return the sigmoid of one logit, or the softmax of several."""
    if len(logits) == 1:
        return [1 / (1 + math.exp(-logits[0]))]
    powers = [math.exp(logit) for logit in logits]
    return [power / sum(powers) for power in powers]


@dataclass
class Received:
    """One request: its path, headers (names in lower case), sender's address and JSON body."""

    path: str
    headers: dict[str, str]
    client: tuple[str, int]
    body: Any = None
    is_cut: bool = False


Handler = Callable[["EngineServer", Received], tuple[int, Any]]


@dataclass
class EngineServer:
    """A server of one protocol.

    `status` is answered to each POST unless it is 200, and `content` in the place of JSON; `gate`
    holds POSTs back until it is set.
    `received` are the requests in order; one whose client left is marked `is_cut`.
    """

    handler: Handler
    labels: int = 1
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    root: str = "checkpoint"
    version: str = "0.32.0"
    key: str = ""
    content: bytes | None = None
    gate: asyncio.Event | None = None
    received: list[Received] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    cut: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""
    port: int = 0

    @property
    def posts(self) -> list[Received]:
        """The POSTs in order."""
        return [request for request in self.received if request.body is not None]

    async def wait_for_posts(self, count: int) -> None:
        """Wait until that many POSTs have come."""
        while len(self.posts) < count:
            self.arrived.clear()
            await self.arrived.wait()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request as an ASGI application."""
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        request = Received(scope["path"], headers, scope["client"])
        body = await _body(receive)
        request.body = orjson.loads(body) if scope["method"] == "POST" else None
        self.received.append(request)
        self.arrived.set()
        is_held = self.gate is not None and request.body is not None
        if is_held and not await self._wait(self.gate, receive):
            request.is_cut = True
            self.cut.set()
            return
        status, value, extra = self._answer(request)
        is_post = request.body is not None
        content = self.content if is_post and self.content is not None else orjson.dumps(value)
        pairs = {"content-length": str(len(content)), "content-type": "application/json", **extra}
        sent = [(name.encode(), text.encode()) for name, text in pairs.items()]
        await send({"type": "http.response.start", "status": status, "headers": sent})
        await send({"type": "http.response.body", "body": content})

    def _answer(self, request: Received) -> tuple[int, Any, dict[str, str]]:
        if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
            return 401, {"error": "Unauthorized"}, {}
        if self.status != 200 and request.body is not None:
            return self.status, {"error": {"message": "a text that quotes"}}, self.headers
        status, value = self.handler(self, request)
        extra = {**self.headers}
        if self.handler is tei and request.body is not None:
            parts = [part for parts in request.body["inputs"] for part in parts]
            extra["x-compute-characters"] = str(sum(map(len, parts)))
        return status, value, extra

    @staticmethod
    async def _wait(gate: asyncio.Event | None, receive: Callable[[], Awaitable[Any]]) -> bool:
        """Wait for the gate; return whether the client is still there."""
        assert gate is not None
        opened = asyncio.ensure_future(gate.wait())
        left = asyncio.ensure_future(receive())
        done, pending = await asyncio.wait({opened, left}, return_when="FIRST_COMPLETED")
        for task in pending:
            task.cancel()
        return opened in done

    @asynccontextmanager
    async def listening(self, port: int = 0) -> AsyncIterator["EngineServer"]:
        """Listen on a loopback port."""
        config = uvicorn.Config(self, log_level="critical", lifespan="off", ws="none")
        config.load()
        state, protocol = ServerState(), cast(Any, config.http_protocol_class)
        loop = asyncio.get_running_loop()
        listener = await loop.create_server(
            lambda: protocol(config=config, server_state=state, app_state={}),
            "127.0.0.1",
            port,
        )
        self.port = listener.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        try:
            yield self
        finally:
            listener.close()
            for connection in list(state.connections):
                connection.transport.abort()
            for task in state.tasks:
                task.cancel()
            await asyncio.gather(*state.tasks, return_exceptions=True)


async def _body(receive: Callable[[], Awaitable[Any]]) -> bytes:
    body = b""
    while True:
        message: dict[str, Any] = await receive()
        body += cast(bytes, message.get("body", b""))
        if not message.get("more_body"):
            return body


def vllm(server: EngineServer, request: Received) -> tuple[int, Any]:
    """Answer as vLLM 0.32 does."""
    if request.path == "/version":
        return 200, {"version": server.version}
    if request.path == "/v1/models":
        model = {"id": "rm", "object": "model", "owned_by": "vllm", "root": server.root}
        return 200, {"object": "list", "data": [{**model, "parent": None, "max_model_len": 1024}]}
    body = request.body
    if request.path == "/score" and server.labels == 1:
        return 200, vllm_scores(request)
    if request.path != "/classify" or body.get("model", "rm") != "rm":
        return 404, {"error": {"message": "no", "type": "NotFoundError", "code": 404}}
    rows = body["input"]
    if any(not row or BAD_TOKEN in row for row in rows):
        message = f"Token id {BAD_TOKEN} is out of vocabulary"
        return 400, {"error": {"message": message, "type": "BadRequestError", "code": 400}}
    logits = [logits_of(row, server.labels) for row in rows]
    plain = body.get("use_activation") is False
    data = [
        {
            "index": index,
            "label": f"LABEL_{index}",
            "probs": list(row) if plain else activated(row),
            "num_classes": len(row),
        }
        for index, row in enumerate(logits)
    ]
    tokens = sum(map(len, rows))
    name = request.headers.get("x-request-id", "4a")
    return 200, {
        "id": f"classify-{name}",
        "object": "list",
        "created": 1_796_011_641,
        "model": "rm",
        "data": data,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0},
    }


def vllm_scores(request: Received) -> Any:
    """Answer as vLLM's `POST /score` does."""
    pairs = zip(request.body["queries"], request.body["documents"], strict=True)
    is_plain = request.body.get("use_activation") is False
    data = []
    for index, pair in enumerate(pairs):
        logits = logits_of("\n".join(pair))
        score = logits[0] if is_plain else activated(logits)[0]
        data.append({"index": index, "object": "score", "score": score})
    usage = {"prompt_tokens": 9, "total_tokens": 9, "completion_tokens": 0}
    name = request.headers.get("x-request-id", "4a")
    return {"id": f"score-{name}", "object": "list", "model": "rm", "data": data, "usage": usage}


def sglang(server: EngineServer, request: Received) -> tuple[int, Any]:
    """Answer as SGLang does on its native routes."""
    if request.path == "/model_info":
        return 200, {"model_path": server.root, "is_generation": False, "weight_version": "v1"}
    if request.path == "/server_info":
        return 200, {"version": server.version, "dtype": "float32", "context_length": 2048}
    if request.path != "/classify":
        return 404, {"detail": "Not Found"}
    rows, ids = request.body["input_ids"], request.body["rid"]
    if any(not row or BAD_TOKEN in row for row in rows):
        return 400, {"error": {"message": "The input_ids are out of range"}}
    return 200, [
        {
            "embedding": list(logits_of(row, server.labels)),
            "meta_info": {"id": id_, "finish_reason": None, "prompt_tokens": len(row)},
        }
        for row, id_ in zip(rows, ids, strict=True)
    ]


def tei(server: EngineServer, request: Received) -> tuple[int, Any]:
    """Answer as Text Embeddings Inference does: labels are sorted by score."""
    names = LABELS[: server.labels] if server.labels > 1 else ("LABEL_0",)
    if request.path == "/info":
        labels = {str(index): name for index, name in enumerate(names)}
        kind = {"classifier": {"id2label": labels, "label2id": {}}}
        return 200, {
            "model_id": server.root,
            "model_sha": "c0ffee",
            "model_dtype": "float32",
            "model_type": kind,
            "max_input_length": 512,
            "max_client_batch_size": 32,
            "version": server.version,
        }
    if request.path != "/predict":
        return 404, {}
    texts = ["\n".join(parts) for parts in request.body["inputs"]]
    if any(BAD_TEXT in text for text in texts):
        return 413, {"error": f"`inputs`: {BAD_TEXT}", "error_type": "Validation"}
    replies = []
    for text in texts:
        logits = logits_of(text, server.labels)
        scores = list(logits) if request.body["raw_scores"] else activated(logits)
        entry = [{"score": score, "label": name} for score, name in zip(scores, names, strict=True)]
        replies.append(sorted(entry, key=lambda part: -float(str(part["score"]))))
    return 200, replies


def assay(server: EngineServer, request: Received) -> tuple[int, Any]:
    """Answer as another Assay does."""
    if request.path == "/version":
        return 200, {"version": server.version}
    if request.path == "/v1/models/rm@1":
        return 200, {"id": "rm@1", "state": "ready", "fingerprint": f"sha256:{server.root}"}
    if request.path != "/v1/score":
        return 404, {"code": "model_not_found"}
    results = []
    for index, item in enumerate(request.body["items"]):
        text = "\n".join(item[name] for name in item if name != "id")
        raw = logits_of(text)[0]
        is_bad = BAD_TEXT in text
        error = {"code": "input_too_long", "detail": "600 tokens, the limit is 512"}
        results.append(
            {
                "index": index,
                "id": item["id"],
                "group": None,
                "status": "error" if is_bad else "ok",
                "score": None if is_bad else raw,
                "raw": None if is_bad else raw,
                "channels": {"reward": None if is_bad else raw},
                "flags": [],
                "tokens": 0 if is_bad else 3,
                "source": None if is_bad else "computed",
                "details": {},
                "error": error if is_bad else None,
            }
        )
    fingerprint = f"sha256:{server.root}"
    return 200, {"id": "score-1", "model": "rm@1", "fingerprint": fingerprint, "results": results}


PROTOCOLS: dict[str, Handler] = {"vllm": vllm, "sglang": sglang, "tei": tei, "assay": assay}
