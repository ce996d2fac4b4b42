"""AccessMiddleware, the outermost layer: request ids, API keys, size limits, request metrics."""

import asyncio
import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import SimpleNamespace

from prometheus_client import Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from assay.api.access import Access
from assay.api.body_budget import BodyBudget
from assay.api.disconnect import disconnected_response
from assay.api.encodings import coding_of, decompress
from assay.api.errors import problem_response
from assay.api.paths import below_root
from assay.errors import AssayError, Forbidden, RequestTooLarge, Unauthorized
from assay.metrics import Metrics
from assay.types import NO_CALLER, Caller

Headers = Mapping[bytes, bytes]
Header = tuple[bytes, bytes]

MAX_DECOMPRESSIONS = 2
"""Bodies that are decompressed at a time; the others wait as they were sent."""
REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
NO_SNIFFING: Header = (b"x-content-type-options", b"nosniff")
NOT_STORED: Header = (b"cache-control", b"no-store")
# A reply with one of them says itself whether it may be stored.
STORAGE_HEADERS = frozenset((b"cache-control", b"etag"))
ENCODING_HEADERS = frozenset((b"content-encoding", b"content-length", b"transfer-encoding"))
REJECTED = SimpleNamespace(path="rejected")  # in the place of a route, for the metrics


class AccessMiddleware:
    """Middleware that gives each request an id, checks its key and its size, and counts it.

    It decompresses bodies, and answers HEAD wherever GET is answered.

    Args:
        app: the protected app.
        access: the check of keys, `Host` and origin; None without any.
        max_body_bytes: the limit of a request's body.
        metrics: counters of requests, by route and status.
        bodies: the bytes of all bodies; it bounds decompressed ones.
        root_path: the path below which a proxy serves the app.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        access: Access | None,
        max_body_bytes: int,
        metrics: Metrics,
        bodies: BodyBudget,
        root_path: str = "",
    ) -> None:
        self._app = app
        self._access = access
        self._max_body_bytes = max_body_bytes
        self._count = _request_counter(metrics)
        self._root_path = root_path
        self._bodies = bodies
        self._decompressing = asyncio.Semaphore(MAX_DECOMPRESSIONS)
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
                message["headers"] = _complete(message["headers"], request_id)
            await send(message)

        try:
            await self._serve(scope, receive, send_with_id, headers)
        finally:
            route = getattr(scope.get("route"), "path", "unmatched")
            self._count(route, status, time.perf_counter() - began)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, headers: Headers) -> None:
        try:
            if self._access is not None:
                caller = _known_caller(self._access, scope, headers)
                scope["caller"] = caller or await self._access.admit(scope, headers)
            has_length = self._has_valid_length(scope, headers)
            if has_length and b"content-encoding" not in headers:
                await self._app(scope, receive, send)
            else:
                await self._serve_read(scope, receive, send)
        except AssayError as error:
            if not isinstance(error, Unauthorized | Forbidden):  # `Access` counts these
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
            await self._app(scope, replay([content], receive), send)
        else:
            with self._bodies.holding() as add:
                async with self._decompressing:
                    parts = await _decompressed(content, coding, self._max_body_bytes, add)
                del content
                others = [pair for pair in scope["headers"] if pair[0] not in ENCODING_HEADERS]
                length = str(sum(map(len, parts))).encode()
                scope["headers"] = [*others, (b"content-length", length)]
                await self._app(scope, replay(parts, receive), send)

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


def replay(parts: Sequence[bytes], receive: Receive) -> Receive:
    """Return a `receive` that yields the body read before, then the remaining messages."""
    pending: list[Message] = [
        {"type": "http.request", "body": part, "more_body": number > 0}
        for number, part in enumerate(reversed(parts))
    ]

    async def replayed() -> Message:
        return pending.pop() if pending else await receive()

    return replayed


async def _decompressed(
    content: bytes, coding: bytes, max_bytes: int, add: Callable[[int], None]
) -> list[bytes]:
    """Return the parts of a decompressed body, whose sizes are added while it grows."""
    parts: list[bytes] = []
    rest = decompress(content, coding, max_bytes)
    while (part := await asyncio.to_thread(next, rest, None)) is not None:
        add(len(part))
        parts.append(part)
    return parts or [b""]


def _without_body(send: Send) -> Send:
    """Return a `send` that answers HEAD: it ends the response after its headers."""

    async def send_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            await send(message)
            await send({"type": "http.response.body", "body": b""})

    return send_headers


def _complete(headers: Iterable[Header], request_id: bytes) -> list[Header]:
    """Return a reply's headers with its id, without sniffing, and not to be stored by default."""
    complete = [NO_SNIFFING, (b"x-request-id", request_id)]
    is_stored = False
    for pair in headers:
        name = pair[0]
        if name in STORAGE_HEADERS:
            is_stored = True
        if name != b"x-request-id":
            complete.append(pair)
    if not is_stored:
        complete.append(NOT_STORED)
    return complete


def _request_id(headers: Headers) -> bytes:
    """Return the client's request id if it is well-formed, else a new one."""
    given = headers.get(b"x-request-id")
    if given is not None and REQUEST_ID.fullmatch(given):
        return given
    return secrets.token_hex(16).encode()


def _known_caller(access: Access, scope: Scope, headers: Headers) -> Caller | None:
    """Return the sender of a request like one that was admitted before; None for any other."""
    if access.keys is not None:
        return access.keys.admitted.get(headers.get(b"authorization"))
    is_of_browser = b"origin" in headers or b"sec-fetch-site" in headers
    if is_of_browser:
        return None
    return access.admitted.get((headers.get(b"host"), *(scope.get("server") or ())))


def _check_size(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise RequestTooLarge(
            f"the body is larger than {max_bytes} bytes", hint="split the request"
        )


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
