"""A scripted server on a real socket, and a factory for both kinds of clients."""

import asyncio
import inspect
import json
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from support.client_replies import HEALTH, MODEL, best_reply, score_reply

from assay_client import AsyncClient, Client, Clock

PROBLEM = "application/problem+json"


@dataclass(frozen=True)
class ReceivedRequest:
    """A request as the server received it; `peer` is the client's port of the connection."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any
    peer: int


@dataclass(frozen=True)
class Answer:
    """An answer of the scripted server.

    Attributes:
        cut: bytes of the body that are announced and never sent.
        trickle: seconds between two bytes of the body; 0 sends it whole.
        hang: whether nothing is sent until the test is over.
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int = 0
    trickle: float = 0.0
    hang: bool = False


Script = Answer | Callable[[ReceivedRequest], Answer]


def as_json(value: object, status: int = 200, **headers: str) -> Answer:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    kind = "application/json" if status == 200 else PROBLEM
    return Answer(status, json.dumps(value).encode(), {"Content-Type": kind, **named})


def problem(status: int, code: str = "some_code", /, **fields: Any) -> Answer:
    retry_after = fields.pop("retry_after", None)
    headers = {} if retry_after is None else {"Retry_After": retry_after}
    body = {"type": f"urn:assay:problem:{code}", "title": "A title", "status": status}
    return as_json({**body, "detail": "a detail", "code": code, **fields}, status, **headers)


def default_answer(received: ReceivedRequest) -> Answer:
    """Return the answer of a healthy server."""
    if received.path == "/v1/score":
        return as_json(score_reply(received.body["items"], received.body["model"]))
    if received.path == "/v1/best-of-n":
        return as_json(best_reply(received.body))
    if received.path == "/v1/models":
        return as_json({"models": [{**MODEL, "default": True, "state": "ready"}]})
    if received.path == "/v1/models/code@1":
        return as_json({**MODEL, "fingerprint": "sha256:aa", "limits": {"tokens": 512}})
    if received.path == "/v1/runs/team%2Fexp-17/health":
        return as_json(HEALTH)
    if received.path == "/v1/runs/team%2Fexp-17/telemetry":
        step, count = received.body["step"], len(received.body["values"])
        return as_json({"run": "team/exp-17", "step": step, "values": count})
    if received.path == "/readyz":
        return as_json({"ready": True})
    if received.path == "/healthz":
        return Answer(200, b"ok", {"Content-Type": "text/plain"})
    return problem(404, "not_found")


class ScriptedServer:
    """A server that answers from its script, and with the default answer after that.

    Attributes:
        script: one entry for each request, the next first.
        always: answers all requests beyond the script, instead of the default answer.
        received: all requests, in order.
        arrived: set with the first request.
        over: set when the test is over.
    """

    def __init__(self) -> None:
        self.script: deque[Script] = deque()
        self.always: Script | None = None
        self.received: list[ReceivedRequest] = []
        self.arrived = threading.Event()
        self.over = threading.Event()
        self._http = Listener(self)
        poll = {"poll_interval": 0.01}
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs=poll, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    def answer(self, received: ReceivedRequest) -> Answer:
        self.received.append(received)
        self.arrived.set()
        script = self.script.popleft() if self.script else self.always or default_answer
        return script if isinstance(script, Answer) else script(received)

    def close(self) -> None:
        self.over.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


class Listener(ThreadingHTTPServer):
    """The socket of a scripted server."""

    request_queue_size = 128

    def __init__(self, scripted: ScriptedServer) -> None:
        self.scripted = scripted
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(BaseHTTPRequestHandler):
    """One connection of a scripted server."""

    server: "Listener"
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm: ClassVar[bool] = True

    def do_GET(self) -> None:
        self._serve(None)

    def do_POST(self) -> None:
        self._serve(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def log_message(self, *_: object) -> None:
        pass

    def _serve(self, body: Any) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        peer = self.client_address[1]
        answer = self.server.scripted.answer(
            ReceivedRequest(self.command, self.path, headers, body, peer)
        )
        if answer.hang:
            self.server.scripted.over.wait(30)
            self.close_connection = True
            return
        self.close_connection = bool(answer.cut)
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body) + answer.cut))
        self.end_headers()
        self._write(answer)

    def _write(self, answer: Answer) -> None:
        if not answer.trickle:
            self.wfile.write(answer.body)
            return
        for byte in answer.body:
            if self.server.scripted.over.wait(answer.trickle):
                return
            self.wfile.write(bytes([byte]))
            self.wfile.flush()

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError:
            self.close_connection = True

    def finish(self) -> None:
        try:
            super().finish()
        except ConnectionError:
            self.close_connection = True


class FakeClock:
    """A clock that moves only when a client waits.

    Attributes:
        chance: the number that `random` returns.
        waits: the seconds of each wait.
    """

    def __init__(self) -> None:
        self.now = 1000.0
        self.chance = 0.5
        self.waits: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds

    async def async_sleep(self, seconds: float) -> None:
        self.sleep(seconds)

    @property
    def clock(self) -> Clock:
        return Clock(
            monotonic=lambda: self.now,
            wall=lambda: 784_111_770.0,  # Sun, 06 Nov 1994 08:49:30 GMT
            random=lambda: self.chance,
            sleep=self.sleep,
            async_sleep=self.async_sleep,
        )


class BlockingClient:
    """A client of either kind; what its methods return is awaited if need be."""

    def __init__(self, client: Client | AsyncClient, run: Callable[[Any], Any]) -> None:
        self.client = client
        self.run = run

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **fields: Any) -> Any:
            outcome = getattr(self.client, name)(*args, **fields)
            return self.run(outcome) if inspect.isawaitable(outcome) else outcome

        return call


class ClientFactory:
    """Makes clients of one kind, and closes them."""

    def __init__(self, kind: type[Client] | type[AsyncClient], **arguments: Any) -> None:
        self.kind = kind
        self._arguments = arguments
        self._runner = asyncio.Runner()
        self._clients: list[Client | AsyncClient] = []

    def __call__(self, base_url: Any = None, **fields: Any) -> BlockingClient:
        return self.adopt(self.kind(base_url, **self._arguments, **fields))

    def adopt(self, client: Client | AsyncClient) -> BlockingClient:
        self._clients.append(client)
        return BlockingClient(client, self._runner.run)

    def close(self) -> None:
        for client in self._clients:
            if isinstance(client, AsyncClient):
                self._runner.run(client.aclose())
            else:
                client.close()
        self._runner.close()


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ASSAY_URL", raising=False)
    monkeypatch.delenv("ASSAY_API_KEY", raising=False)


@pytest.fixture
def start_server() -> Iterator[Callable[[], ScriptedServer]]:
    """A function that starts scripted servers."""
    servers: list[ScriptedServer] = []

    def start() -> ScriptedServer:
        servers.append(ScriptedServer())
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def server(start_server: Callable[[], ScriptedServer]) -> ScriptedServer:
    return start_server()


@pytest.fixture(params=["sync", "async", "batching"])
def connect(request: pytest.FixtureRequest) -> Iterator[ClientFactory]:
    """A factory of clients: synchronous, asynchronous, and asynchronous ones that batch."""
    kind = Client if request.param == "sync" else AsyncClient
    factory = ClientFactory(kind, **({"gather": True} if request.param == "batching" else {}))
    yield factory
    factory.close()


@pytest.fixture
def fake_clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def refused_url() -> str:
    """An address on which no server listens."""
    idle = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    idle.server_close()
    return f"http://127.0.0.1:{idle.server_port}"


@pytest.fixture
def canned() -> SimpleNamespace:
    """Canned answers for scripts: any answer, JSON, a problem, a reply to items."""
    return SimpleNamespace(
        answer=Answer,
        json=as_json,
        problem=problem,
        score_reply=score_reply,
        best_reply=best_reply,
        default_answer=default_answer,
        health=HEALTH,
    )
