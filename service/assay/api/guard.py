"""What stands between the socket and an endpoint: Guard, for every route (request ids, API keys,
the limit on a body, request counts), and JsonRoute, for those that take JSON.
"""

import asyncio
import base64
import binascii
import re
import secrets
import time
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import is_dataclass
from functools import cached_property
from typing import Annotated, Any, get_args, get_type_hints

import orjson
from fastapi import Header, Request, Response
from fastapi.routing import APIRoute
from prometheus_client import Counter, Histogram
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from assay.api.errors import problem_response
from assay.errors import AssayError, Forbidden, RequestTooLarge, Unauthorized
from assay.metrics import Metrics
from assay.queueing import Lane

Headers = Mapping[bytes, bytes]

ACCEPTED_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
CALLER_LEFT = 499
MAX_HEADER_BYTES = 65_536
LONGEST_TIMEOUT_MS = 3_600_000
READING = frozenset(("GET", "HEAD"))
MODEL, MODEL_PLACE = "{model}", 3
LANES = frozenset(lane.encode() for lane in get_args(Lane))
ORDINARY = frozenset(("request", "body", "timeout", "priority", "return"))

Timeout = Annotated[
    int | None,
    Header(
        alias="X-Assay-Timeout-Ms",
        ge=1,
        le=LONGEST_TIMEOUT_MS,
        description="Milliseconds the caller waits; what takes longer is dropped unscored.",
    ),
]

Priority = Annotated[
    Lane,
    Header(
        alias="X-Assay-Priority",
        description="The lane: who goes first where the device is busy.",
    ),
]


class JsonRequest(Request):
    """A request whose body a strict codec parses: no NaN, no lone surrogates, bounded depth."""

    async def json(self) -> Any:
        """The body's value."""
        return orjson.loads(await self.body())


class JsonRoute(APIRoute):
    """A route that takes JSON, and stops its work when the caller leaves.

    A request in which nothing is out of the ordinary goes to the endpoint at once. Any other takes
    the framework's way, which finds what is wrong with it and says so.
    """

    @cached_property
    def shape(self) -> type[BaseModel] | None:
        """What the body has to be; None where the endpoint wants more than `ordinary` reads."""
        wanted = get_type_hints(self.endpoint)
        body = wanted.get("body")
        known = set(wanted) <= ORDINARY | set(self.param_convertors)
        return body if known and isinstance(body, type) and issubclass(body, BaseModel) else None

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler FastAPI made, for what cannot go to the endpoint at once."""
        handler = super().get_route_handler()

        async def answer(request: Request) -> Response:
            strict = JsonRequest(request.scope, request.receive)
            if request.method != "POST":
                return await handler(strict)
            try:
                content = await strict.body()
            except ClientDisconnect:
                return Response(status_code=CALLER_LEFT)
            arguments = self.ordinary(request.scope, headers_of(request.scope), content)
            work = handler(strict) if arguments is None else self.endpoint(request, **arguments)
            return await while_awaited(request.receive, work)

        return answer

    def ordinary(self, scope: Scope, headers: Headers, content: bytes) -> dict[str, Any] | None:
        """The endpoint's arguments; None if anything about the request is out of the ordinary."""
        if self.shape is None or not _is_json(headers.get(b"content-type", b"")):
            return None
        found = dict(scope.get("path_params", {}))
        timeout = headers.get(b"x-assay-timeout-ms")
        if timeout is not None:
            if not timeout.isdigit() or not 1 <= int(timeout[:8]) <= LONGEST_TIMEOUT_MS:
                return None
            found["timeout"] = int(timeout[:8])
        lane = headers.get(b"x-assay-priority")
        if lane is not None:
            if lane not in LANES:
                return None
            found["priority"] = lane.decode()
        try:
            found["body"] = self.shape.model_validate(orjson.loads(content))
        except (orjson.JSONDecodeError, ValidationError):
            return None
        return found


class Guard:
    """The outermost layer of the app.

    Args:
        app: what it guards.
        routes: by path, those whose ordinary requests need none of the app's own layers.
        keys: the accepted API keys; none means that no key is asked for.
        keyless: paths that may be read without one.
        max_body_bytes: of a request.
        metrics: where requests are counted, by route and status.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        routes: Mapping[str, JsonRoute],
        keys: Sequence[str],
        keyless: Collection[str],
        max_body_bytes: int,
        metrics: Metrics,
    ) -> None:
        self._app = app
        self._routes = routes
        self._keys = [key.encode() for key in keys]
        self._keyless = keyless
        self._max_body_bytes = max_body_bytes
        self._count = _counted(metrics)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or pass on what is not HTTP."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = headers_of(scope)
        given = headers.get(b"x-request-id")
        accepted = given is not None and ACCEPTED_ID.fullmatch(given)
        request_id = given if given and accepted else secrets.token_hex(16).encode()
        scope["request_id"] = request_id.decode()
        began, status = time.perf_counter(), 500

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                others = [pair for pair in message["headers"] if pair[0] != b"x-request-id"]
                message["headers"] = [*others, (b"x-request-id", request_id)]
            await send(message)

        try:
            await self._serve(scope, receive, send_with_id, headers)
        finally:
            route = getattr(scope.get("route"), "path", "unmatched")
            self._count(route, status, time.perf_counter() - began)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, headers: Headers) -> None:
        route = self._direct(scope) if scope["method"] == "POST" else None
        content: bytes | None = b""
        try:
            self._check_headers(scope)
            self._check_key(scope, headers)
            announced = self._announced(headers)
            if route is not None or not announced:
                content = await self._collected(receive)
        except AssayError as error:
            response = problem_response(error, scope)
            response.headers["Connection"] = "close"
            await response(scope, receive, send)
            return
        if content is None:
            await Response(status_code=CALLER_LEFT)(scope, receive, send)
            return
        arguments = None if route is None else route.ordinary(scope, headers, content)
        if route is not None and arguments is not None:
            await _answer(route, arguments, scope, receive, send)
            return
        replay = route is not None or not announced
        await self._app(scope, _replayed(content, receive) if replay else receive, send)

    def _direct(self, scope: Scope) -> JsonRoute | None:
        """The route of a path that names none but itself, or a model where all routes name it."""
        path: str = scope["path"]
        parts = path.split("/", MODEL_PLACE + 1)
        if len(parts) <= MODEL_PLACE or not parts[MODEL_PLACE]:
            return self._routes.get(path)
        model, parts[MODEL_PLACE] = parts[MODEL_PLACE], MODEL
        route = self._routes.get("/".join(parts))
        if route is None:
            return self._routes.get(path)
        scope["path_params"] = {"model": model}
        return route

    def _check_headers(self, scope: Scope) -> None:
        if sum([len(name) + len(value) for name, value in scope["headers"]]) > MAX_HEADER_BYTES:
            raise RequestTooLarge(
                f"the headers are larger than {MAX_HEADER_BYTES} bytes", hint="send fewer"
            )

    def _check_key(self, scope: Scope, headers: Headers) -> None:
        if not self._keys or (scope["path"] in self._keyless and scope["method"] in READING):
            return
        key = _key_of(headers)
        if not key:
            raise Unauthorized(
                "this server wants an API key",
                hint="Authorization: Bearer KEY, or http://:KEY@HOST where only a URL can be set",
            )
        matches = [secrets.compare_digest(key, known) for known in self._keys]
        if not any(matches):
            raise Forbidden("this API key is not accepted")

    def _announced(self, headers: Headers) -> bool:
        """Whether the body's length is known, and within the limit."""
        length = headers.get(b"content-length", b"")
        if length.isdigit():
            self._check_size(int(length))
            return True
        return b"transfer-encoding" not in headers

    async def _collected(self, receive: Receive) -> bytes | None:
        """The whole body, read up to the limit before anything is done with it; None when the
        caller left before it was there.
        """
        parts: list[bytes] = []
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return None
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            self._check_size(size)
            more = message.get("more_body", False)
        return b"".join(parts)

    def _check_size(self, size: int) -> None:
        if size > self._max_body_bytes:
            raise RequestTooLarge(
                f"the body is larger than {self._max_body_bytes} bytes", hint="split the request"
            )


async def while_awaited(receive: Receive, work: Coroutine[Any, Any, Response]) -> Response:
    """The work's response, or none to speak of once the caller is gone: then it is cancelled, so
    that what nobody else awaits is dropped before it costs compute.

    Args:
        receive: gives what the caller does after the body.
        work: is watched only from when it first has to wait, because watching is a task.
    """
    task = asyncio.current_task()
    assert task is not None
    watch = _Watch(task, receive)
    beginning = asyncio.get_running_loop().call_soon(watch.begin)
    try:
        return await work
    except asyncio.CancelledError:
        if not watch.left or task.cancelling() > 1:
            raise
        return Response(status_code=CALLER_LEFT)
    finally:
        beginning.cancel()
        watch.end()


class _Watch:
    """Cancels a task when the caller leaves."""

    def __init__(self, task: asyncio.Task[Any], receive: Receive) -> None:
        self.left = False
        self._task = task
        self._receive = receive
        self._leaving: asyncio.Task[None] | None = None

    def begin(self) -> None:
        self._leaving = asyncio.create_task(self._wait())

    def end(self) -> None:
        if self.left:
            self._task.uncancel()
        elif self._leaving is not None:
            self._leaving.cancel()

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.left = True
        self._task.cancel()


def direct_routes(routes: Sequence[BaseRoute]) -> dict[str, JsonRoute]:
    """Those that a POST to their path names, or to their path with a model in its usual place."""
    return {
        route.path: route
        for route in routes
        if isinstance(route, JsonRoute)
        and "POST" in (route.methods or ())
        and "{" not in route.path.replace(f"/{MODEL}", "", _names_model(route.path))
    }


def _names_model(path: str) -> bool:
    return path.split("/")[MODEL_PLACE : MODEL_PLACE + 1] == [MODEL]


def headers_of(scope: Scope) -> Headers:
    """A request's headers by name, in lower case; of several the first."""
    return dict(reversed(scope["headers"]))


def json_response(value: Any, status: int = 200) -> Response:
    """A reply in JSON. Dataclasses are written as they are."""
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    assert is_dataclass(plain) or isinstance(plain, Mapping | list | float)
    return Response(orjson.dumps(plain), status, media_type="application/json")


async def _answer(
    route: JsonRoute, arguments: Mapping[str, Any], scope: Scope, receive: Receive, send: Send
) -> None:
    scope["route"] = route
    try:
        work = route.endpoint(Request(scope, receive), **arguments)
        response = await while_awaited(receive, work)
    except AssayError as error:
        response = problem_response(error, scope)
    await response(scope, receive, send)


def _key_of(headers: Headers) -> bytes:
    """The key a request carries, as a bearer, as the password of a URL, or in its own header."""
    scheme, _, rest = headers.get(b"authorization", b"").partition(b" ")
    match scheme.lower():
        case b"bearer":
            return rest.strip()
        case b"basic":
            return _password(rest.strip())
    return headers.get(b"x-api-key", b"")


def _password(credentials: bytes) -> bytes:
    try:
        return base64.b64decode(credentials, validate=True).partition(b":")[2]
    except binascii.Error:
        return b""


def _replayed(content: bytes, receive: Receive) -> Receive:
    pending: list[Message] = [{"type": "http.request", "body": content, "more_body": False}]

    async def replay() -> Message:
        return pending.pop() if pending else await receive()

    return replay


def _counted(metrics: Metrics) -> Callable[[str, int, float], None]:
    """Counts requests; each series is looked up once."""
    series: dict[tuple[str, int], tuple[Counter, Histogram]] = {}

    def count(route: str, status: int, seconds: float) -> None:
        found = series.get((route, status))
        if found is None:
            requests = metrics.requests.labels(route, str(status))
            found = series[route, status] = requests, metrics.request_seconds.labels(route)
        found[0].inc()
        found[1].observe(seconds)

    return count


def _is_json(content_type: bytes) -> bool:
    return content_type.partition(b";")[0].rstrip() == b"application/json"
