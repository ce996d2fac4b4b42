"""Bodies of very many elements, on every route: refused at about the cost of reading them."""

import json
import os
import re
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any, get_type_hints

import httpx2
import pytest
from fastapi import FastAPI
from pydantic import BaseModel, TypeAdapter, ValidationError

from assay.api.json_route import JsonRoute
from assay.app import create_app
from assay.settings import Settings
from assay_models.base import NullIsAbsent
from assay_models.bounded import MAX_FIELDS
from assay_models.registry import FAMILIES

ELEMENTS = {"number": "1", "null": "null", "text": '""', "array": "[]", "object": "{}"}
MAX_BODY_BYTES = Settings().max_body_bytes
COMMAND = [sys.executable, "-c", "from assay.cli import app; app()", "serve", "--port", "0"]
READING = {"GET", "DELETE"}  # methods without a body
NAMES = {"model": "reference", "run": "exp", "rollout": "0-0", "version": "1"}


def routes_with_body() -> list[JsonRoute]:
    app: FastAPI = create_app(Settings(models=("reference",), runs="off"))
    routes = [route for router in app.router.routes for route in _routes_of(router)]
    return [route for route in routes if (route.methods or set()) - READING and bodies_of(route)]


def _routes_of(route: Any) -> Iterator[JsonRoute]:
    if isinstance(route, JsonRoute):
        yield route
    for inner in getattr(getattr(route, "original_router", route), "routes", None) or ():
        yield from _routes_of(inner)


def bodies_of(route: JsonRoute) -> list[type[BaseModel]]:
    hints = get_type_hints(route.endpoint).values()
    return [hint for hint in hints if isinstance(hint, type) and issubclass(hint, BaseModel)]


ROUTES = routes_with_body()
BODIES = sorted(
    {body for route in ROUTES for body in bodies_of(route)}
    | {family.item for family in FAMILIES.values()},
    key=lambda body: body.__name__,
)


def wire_names(body: type[BaseModel]) -> list[str]:
    """Return the names by which a class reads its fields."""
    return sorted(TypeAdapter(body).json_schema()["properties"])


def test_every_route_that_takes_a_body_is_found() -> None:
    paths = {route.path for route in ROUTES}
    assert {"/v1/score", "/v2/models/{model}/infer", "/verify", "/v1/runs/{run:path}"} <= paths
    assert len(paths) > 40


@pytest.mark.parametrize("element", [1, None, [], {}, {"role": "user"}, "\ud800"], ids=repr)
@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
def test_wrong_elements_make_few_problems_whatever_their_number(
    body: type[BaseModel], element: object
) -> None:
    for name in wire_names(body):
        for value in ([element] * 5_000, [{"content": [element] * 5_000}], [[element] * 5_000]):
            assert count_problems(body, {name: value}) < 100


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
def test_unknown_fields_make_few_problems_whatever_their_number(body: type[BaseModel]) -> None:
    unknown = {f"unknown{number}": 1 for number in range(20_000)}
    assert count_problems(body, unknown) < 100
    for name in wire_names(body):
        for value in (unknown, [unknown], [[unknown]]):
            assert count_problems(body, {name: value}) < 100


def count_problems(body: type[BaseModel], value: object) -> int:
    try:
        body.model_validate(value)
    except ValidationError as error:
        return error.error_count()
    return 0


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
def test_every_object_of_a_body_is_of_the_class_that_bounds_its_problems(
    body: type[BaseModel],
) -> None:
    schema = body.__pydantic_core_schema__
    classes = {part["cls"] for part in _parts_of(schema) if part.get("type") == "model"}
    assert body in classes
    assert all(issubclass(model, NullIsAbsent) for model in classes)


def _parts_of(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        yield schema
        schema = list(schema.values())
    if isinstance(schema, list | tuple):
        for part in schema:
            yield from _parts_of(part)


class ServerProcess:
    """A real `assay serve`, with its memory and its metrics."""

    def __init__(self, folder: str) -> None:
        inherited = {name: text for name, text in os.environ.items() if "ASSAY_" not in name}
        settings = {"ASSAY_MODELS": "reference", "ASSAY_RUNS": f"{folder}/runs.db"}
        self.process = subprocess.Popen(
            COMMAND,
            env=inherited | settings,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        limits = (4 * 2**30, 4 * 2**30)
        resource.prlimit(self.process.pid, resource.RLIMIT_AS, limits)
        self.url = self._read_url()
        self.client = httpx2.Client(base_url=self.url, timeout=60)

    def _read_url(self) -> str:
        assert self.process.stderr is not None
        url = ""
        for line in self.process.stderr:
            match = re.search(r"http://127\.0\.0\.1:\d+", line)
            url = match[0] if match else url
            if "is ready" in line:
                self.reader = threading.Thread(target=self.process.stderr.read)
                self.reader.start()
                return url
        raise RuntimeError("the server did not start")

    def post(self, route: JsonRoute, content: bytes) -> httpx2.Response:
        path = re.sub(r"\{(\w+)(:\w+)?\}", lambda match: NAMES[match[1]], route.path)
        method = min(route.methods or {"POST"})
        headers = {"content-type": "application/json"}
        return self.client.request(method, path, content=content, headers=headers)

    def peak_bytes(self) -> int:
        """Return the most memory that the process has held at once."""
        with open(f"/proc/{self.process.pid}/status") as status:
            return int(re.search(r"VmHWM:\s+(\d+) kB", status.read())[1]) * 1024  # type: ignore[index]

    def reset_peak(self) -> int:
        """Let the peak begin at the memory that the process holds now, and return it."""
        with open(f"/proc/{self.process.pid}/clear_refs", "w") as file:
            file.write("5")
        return self.peak_bytes()

    def stalls(self) -> float:
        """Return how often the event loop itself computed for longer than it may."""
        metrics = self.client.get("/metrics").text
        match = re.search(
            r'^assay_event_loop_stalls_total\{cause="computing"\} (\S+)', metrics, re.M
        )
        return float(match[1]) if match else 0.0

    def stop(self) -> None:
        self.client.close()
        self.process.terminate()
        self.process.wait()
        self.reader.join()
        if self.process.stderr is not None:
            self.process.stderr.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    running = ServerProcess(str(tmp_path_factory.mktemp("runs")))
    for route in ROUTES:  # the first malformed request builds the framework's routes
        running.post(route, b"{}")
    yield running
    running.stop()


def hostile_bodies(route: JsonRoute, count: int) -> Iterator[bytes]:
    """Yield bodies with a list of that many elements in each field, at the top and deeper."""
    for body in bodies_of(route):
        for number, name in enumerate(wire_names(body)):
            element = list(ELEMENTS.values())[number % len(ELEMENTS)].encode()
            yield _in_field(name, b"[" + (element + b",") * count + element + b"]")


def _in_field(name: str, content: bytes) -> bytes:
    return b"{" + json.dumps(name).encode() + b":" + content + b"}"


@pytest.mark.slow
def test_50_000_elements_in_any_field_of_any_route_hold_no_event_loop(
    server: ServerProcess,
) -> None:
    before = server.stalls()
    for route in ROUTES:
        for content in hostile_bodies(route, 50_000):
            check(server.post(route, content), content)
    assert server.stalls() == before


@pytest.mark.slow
def test_a_body_full_of_elements_is_refused_within_the_memory_of_its_bytes(
    server: ServerProcess,
) -> None:
    before = server.reset_peak()
    for route in ROUTES:
        for content in list(hostile_bodies(route, 3_100_000))[:2]:
            answer = server.post(route, content)
            check(answer, content)
            assert answer.status_code == 413
    assert server.peak_bytes() - before < 8 * MAX_BODY_BYTES
    assert server.client.get("/healthz").status_code == 200


def check(answer: httpx2.Response, content: bytes) -> None:
    assert 200 <= answer.status_code < 500, (answer.status_code, content[:50])
    assert len(answer.content) < 20_000 or answer.status_code == 200
    if answer.status_code >= 400:
        assert len(answer.json()["errors"] or ()) <= 20


HOLDING_ANY_JSON = ("/v1/score", "/verify", "/aggregate_metrics", "/compat/roll/{model}/submit")
LARGE = {
    "one text": b'["' + b"x" * (24 * 2**20) + b'"]',
    "one emoji": ('["' + "x" * (24 * 2**20) + '🦜"]').encode(),
    "numbers": b"[" + b"0," * 2_999_000 + b"0]",
    "decimals": b"[" + b"0.1234567890123456," * 745_000 + b"0]",
    "texts": b"[" + b'"ab",' * 595_000 + b"0]",
    "names": b"{" + b",".join(b'"%07d":0' % number for number in range(325_000)) + b"}",
    "objects": b"[" + b'{"a":0},' * 225_000 + b"0]",
    "escaped": b'["' + b"\\n" * (12 * 2**20) + b'"]',
}


@pytest.mark.slow
@pytest.mark.parametrize("content", LARGE.values(), ids=LARGE)
def test_memory_stays_within_eight_times_the_largest_body(
    server: ServerProcess, content: bytes
) -> None:
    for route in ROUTES:
        for body in bodies_of(route) if route.path in HOLDING_ANY_JSON else ():
            for name in wire_names(body):
                before = server.reset_peak()
                check(server.post(route, _in_field(name, content)), content)
                assert server.peak_bytes() - before < 8 * MAX_BODY_BYTES, (route.path, name)


@pytest.mark.slow
def test_a_long_name_of_a_request_is_cut_in_its_error(server: ServerProcess) -> None:
    name = "x" * 1_000_000
    for content in (
        {name: 1},
        {"model": name, "items": [{"text": "a"}]},
        {"model": "reference", "items": [{name: "a"}]},
        {"model": "reference", "items": [{"text": "a", "id": name}]},
    ):
        answer = server.client.post("/v1/score", json=content)
        assert answer.status_code in (404, 422)
        assert len(answer.content) < 8 * MAX_FIELDS
