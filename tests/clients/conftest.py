"""A server on a real socket that answers as it is told to, and one driver for both clients."""

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
class Seen:
    """A request as it reached the server; `peer` is the port at the other end of the connection."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any
    peer: int


@dataclass(frozen=True)
class Answer:
    """What to reply. `cut` bytes of the body are promised and never sent; a `trickle` sends it
    byte by byte with so many seconds between; a `hang` sends nothing until the test is over."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int = 0
    trickle: float = 0.0
    hang: bool = False


Script = Answer | Callable[[Seen], Answer]


def as_json(value: object, status: int = 200, **headers: str) -> Answer:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    kind = "application/json" if status == 200 else PROBLEM
    return Answer(status, json.dumps(value).encode(), {"Content-Type": kind, **named})


def problem(status: int, code: str = "some_code", /, **fields: Any) -> Answer:
    retry_after = fields.pop("retry_after", None)
    headers = {} if retry_after is None else {"Retry_After": retry_after}
    body = {"type": f"urn:assay:problem:{code}", "title": "A title", "status": status}
    return as_json({**body, "detail": "a detail", "code": code, **fields}, status, **headers)


def usual(seen: Seen) -> Answer:
    """What a server in good health answers."""
    if seen.path == "/v1/score":
        return as_json(score_reply(seen.body["items"]))
    if seen.path == "/v1/best-of-n":
        return as_json(best_reply(seen.body))
    if seen.path == "/v1/models":
        return as_json({"models": [{**MODEL, "default": True, "state": "ready"}]})
    if seen.path == "/v1/models/code@1":
        return as_json({**MODEL, "fingerprint": "sha256:aa", "limits": {"tokens": 512}})
    if seen.path == "/v1/runs/team%2Fexp-17/health":
        return as_json(HEALTH)
    if seen.path == "/v1/runs/team%2Fexp-17/telemetry":
        told = {"run": "team/exp-17", "step": seen.body["step"]}
        return as_json({**told, "values": len(seen.body["values"])})
    if seen.path == "/readyz":
        return as_json({"ready": True})
    if seen.path == "/healthz":
        return Answer(200, b"ok", {"Content-Type": "text/plain"})
    return problem(404, "not_found")


class ScriptedServer:
    """Answers with its script, one entry for each request, and as `usual` after that."""

    def __init__(self) -> None:
        self.script: deque[Script] = deque()
        self.always: Script | None = None
        self.seen: list[Seen] = []
        self.arrived = threading.Event()
        self.over = threading.Event()
        self._http = Listener(self)
        poll = {"poll_interval": 0.01}
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs=poll, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    def answer(self, seen: Seen) -> Answer:
        self.seen.append(seen)
        self.arrived.set()
        script = self.script.popleft() if self.script else self.always or usual
        return script if isinstance(script, Answer) else script(seen)

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
    server: "Listener"
    protocol_version: ClassVar[str] = "HTTP/1.1"
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
        answer = self.server.scripted.answer(Seen(self.command, self.path, headers, body, peer))
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


class FakeTime:
    """A clock that moves only when somebody waits."""

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


class Driven:
    """A client of either kind; what its methods promise is awaited."""

    def __init__(self, client: Client | AsyncClient, run: Callable[[Any], Any]) -> None:
        self.client = client
        self._run = run

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **fields: Any) -> Any:
            outcome = getattr(self.client, name)(*args, **fields)
            return self._run(outcome) if inspect.isawaitable(outcome) else outcome

        return call


class Driver:
    """Makes clients of one kind, and closes them."""

    def __init__(self, kind: type[Client] | type[AsyncClient], **chosen: bool) -> None:
        self.kind = kind
        self._chosen = chosen
        self._runner = asyncio.Runner()
        self._made: list[Client | AsyncClient] = []

    def __call__(self, base_url: Any = None, **fields: Any) -> Driven:
        return self.adopt(self.kind(base_url, **self._chosen, **fields))

    def adopt(self, client: Client | AsyncClient) -> Driven:
        self._made.append(client)
        return Driven(client, self._runner.run)

    def close(self) -> None:
        for client in self._made:
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
def start() -> Iterator[Callable[[], ScriptedServer]]:
    """Starts servers."""
    servers: list[ScriptedServer] = []

    def start_one() -> ScriptedServer:
        servers.append(ScriptedServer())
        return servers[-1]

    yield start_one
    for server in servers:
        server.close()


@pytest.fixture
def server(start: Callable[[], ScriptedServer]) -> ScriptedServer:
    return start()


@pytest.fixture(params=["sync", "async", "gathering"])
def connect(request: pytest.FixtureRequest) -> Iterator[Driver]:
    """Makes clients: those that wait, those that are awaited, and those that gather besides."""
    kind = Client if request.param == "sync" else AsyncClient
    driver = Driver(kind, **({"gather": True} if request.param == "gathering" else {}))
    yield driver
    driver.close()


@pytest.fixture
def fake_time() -> FakeTime:
    return FakeTime()


@pytest.fixture
def refused_url() -> str:
    """An address where nobody listens."""
    idle = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    idle.server_close()
    return f"http://127.0.0.1:{idle.server_port}"


@pytest.fixture
def say() -> SimpleNamespace:
    """The words of scripts: an answer as it is, JSON, a problem, a reply to items."""
    return SimpleNamespace(
        answer=Answer,
        json=as_json,
        problem=problem,
        score_reply=score_reply,
        best_reply=best_reply,
        usual=usual,
        health=HEALTH,
    )
