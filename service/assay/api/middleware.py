"""AccessMiddleware, the outermost layer: request ids, API keys, size limits, request metrics."""

import asyncio
import base64
import binascii
import re
import secrets
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from types import SimpleNamespace

from prometheus_client import Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from assay.api.body_budget import BodyBudget
from assay.api.disconnect import disconnected_response
from assay.api.encodings import coding_of, decompress
from assay.api.errors import problem_response
from assay.api.paths import below_root, clean_path, route_path
from assay.errors import AssayError, Forbidden, RequestTooLarge, Unauthorized
from assay.metrics import Metrics
from assay.types import NO_CALLER, Caller

Headers = Mapping[bytes, bytes]

REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
READ_METHODS = frozenset(("GET", "HEAD"))
ENCODING_HEADERS = frozenset((b"content-encoding", b"content-length", b"transfer-encoding"))


REJECTED = SimpleNamespace(path="rejected")  # in the place of a route, for the metrics
STRANGER = Caller(scopes=frozenset(), is_trusted=False)


class AccessMiddleware:
    """Middleware that gives each request an id, checks its key and its size, and counts it.

    It decompresses bodies, and answers HEAD wherever GET is answered.

    Args:
        app: the protected app.
        keys: the accepted API keys; without any, no key is required.
        public_paths: paths that may be read without a key.
        max_body_bytes: the limit of a request's body.
        metrics: counters of requests, by route and status.
        bodies: the bytes of all bodies; it bounds decompressed ones.
        root_path: the path below which a proxy serves the app.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: Sequence[str],
        public_paths: Collection[str],
        max_body_bytes: int,
        metrics: Metrics,
        bodies: BodyBudget,
        root_path: str = "",
    ) -> None:
        self._app = app
        self._keys = [key.encode() for key in keys]
        self._public_paths = public_paths
        self._max_body_bytes = max_body_bytes
        self._count = _request_counter(metrics)
        self._root_path = root_path
        self._bodies = bodies
        self._rejected = metrics.rejected

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; pass other scopes (lifespan, websocket) to the app."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = headers_of(scope)
        request_id = _request_id(headers)
        if self._root_path:
            scope = below_root(scope, self._root_path)
        if scope["method"] == "HEAD":
            scope, send = {**scope, "method": "GET"}, _without_body(send)
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
        try:
            scope["caller"] = self._check_key(scope, headers)
            has_length = self._has_valid_length(scope, headers)
            if has_length and b"content-encoding" not in headers:
                await self._app(scope, receive, send)
            else:
                await self._serve_read(scope, receive, send)
        except AssayError as error:
            self._rejected.labels(error.code).inc()
            scope["route"] = REJECTED
            response = problem_response(error, scope)
            response.headers["Connection"] = "close"
            await response(scope, receive, send)

    async def _serve_read(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request of which the body has to be read first: its size or its text is unknown.

        Raises:
            Overloaded: with the decompressed body the process would hold too many bytes.
            RequestTooLarge: it exceeds the limit.
            UnsupportedEncoding: its encoding is unknown.
            UnreadableBody: it is damaged.
        """
        codings = [value for name, value in scope["headers"] if name == b"content-encoding"]
        coding = coding_of(b",".join(codings))
        content = await read_body(receive, self._max_body_bytes)
        if content is None:
            await disconnected_response()(scope, receive, send)
        elif not content or coding is None:
            await self._app(scope, replay(content, receive), send)
        else:
            content = await asyncio.to_thread(decompress, content, coding, self._max_body_bytes)
            others = [pair for pair in scope["headers"] if pair[0] not in ENCODING_HEADERS]
            scope["headers"] = [*others, (b"content-length", str(len(content)).encode())]
            with self._bodies.hold(len(content)):
                await self._app(scope, replay(content, receive), send)

    def _check_key(self, scope: Scope, headers: Headers) -> Caller:
        """Return the request's sender; a public path needs no key.

        Raises:
            Unauthorized: the path needs a key, and the request has none.
            Forbidden: the path needs a key, and the request's is not accepted.
        """
        if not self._keys:
            return NO_CALLER
        key = _key_of(headers)
        matches = [secrets.compare_digest(key, known) for known in self._keys]
        if any(matches):
            return NO_CALLER
        if scope["method"] in READ_METHODS and clean_path(route_path(scope)) in self._public_paths:
            return STRANGER
        if not key:
            raise Unauthorized(
                "this server wants an API key",
                hint="Authorization: Bearer KEY, or http://:KEY@HOST where only a URL can be set",
            )
        raise Forbidden("this API key is not accepted")

    def _has_valid_length(self, scope: Scope, headers: Headers) -> bool:
        """Return whether the headers state a body length within the limit, or no body.

        A transfer encoding overrides a stated length, and HTTP/2 needs neither (RFC 9112, 6.3; RFC
        9113, 8.1).

        Raises:
            RequestTooLarge: the length exceeds the limit.
        """
        if b"transfer-encoding" in headers:
            return False
        length = headers.get(b"content-length")
        if length is None:
            return str(scope["http_version"]).startswith("1")
        if not length.isdigit():
            return False
        _check_size(int(length), self._max_body_bytes)
        return True


def caller_of(scope: Scope) -> Caller:
    """Return the sender of a request; below another middleware than ours, one with all rights."""
    caller: Caller = scope.get("caller", NO_CALLER)
    return caller


def headers_of(scope: Scope) -> Headers:
    """Return a request's headers by lower-case name; of a repeated header, the first."""
    return dict(reversed(scope["headers"]))


async def read_body(receive: Receive, max_bytes: int | None = None) -> bytes | None:
    """Return the whole body; None if the client disconnected before it was complete.

    Args:
        receive: yields the request's messages.
        max_bytes: the limit; None if the length was checked before.

    Raises:
        RequestTooLarge: the body exceeds the limit.
    """
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if max_bytes is not None:
            _check_size(size, max_bytes)
        more = message.get("more_body", False)
    return b"".join(parts)


def replay(content: bytes, receive: Receive) -> Receive:
    """Return a `receive` that yields the body read before, then the remaining messages."""
    pending: list[Message] = [{"type": "http.request", "body": content, "more_body": False}]

    async def replayed() -> Message:
        return pending.pop() if pending else await receive()

    return replayed


def _without_body(send: Send) -> Send:
    """Return a `send` that answers HEAD: it ends the response after its headers."""

    async def send_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            await send(message)
            await send({"type": "http.response.body", "body": b""})

    return send_headers


def _request_id(headers: Headers) -> bytes:
    """Return the client's request id if it is well-formed, else a new one."""
    given = headers.get(b"x-request-id")
    if given is not None and REQUEST_ID.fullmatch(given):
        return given
    return secrets.token_hex(16).encode()


def _check_size(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise RequestTooLarge(
            f"the body is larger than {max_bytes} bytes", hint="split the request"
        )


def _key_of(headers: Headers) -> bytes:
    """Return a request's key: a bearer token, a URL's password (basic), or `X-API-Key`."""
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


def _request_counter(metrics: Metrics) -> Callable[[str, int, float], None]:
    """Return a function that counts a request; each series is looked up once."""
    series: dict[tuple[str, int], tuple[Counter, Histogram]] = {}

    def count(route: str, status: int, seconds: float) -> None:
        found = series.get((route, status))
        if found is None:
            requests = metrics.requests.labels(route, str(status))
            found = series[route, status] = requests, metrics.request_seconds.labels(route)
        found[0].inc()
        found[1].observe(seconds)

    return count
