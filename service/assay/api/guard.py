"""Guard: what holds for every route. Request ids, API keys, the limit on a body, request counts."""

import re
import secrets
import time
import uuid
from collections.abc import Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from assay.api.errors import problem_response
from assay.errors import AssayError, Forbidden, RequestTooLarge, Unauthorized
from assay.metrics import Metrics

ACCEPTED_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class Guard:
    """The outermost layer of the app.

    Args:
        app: what it guards.
        keys: the accepted API keys; none means that no key is asked for.
        max_body_bytes: of a request.
        metrics: where requests are counted, by route and status.
    """

    def __init__(
        self, app: ASGIApp, *, keys: Sequence[str], max_body_bytes: int, metrics: Metrics
    ) -> None:
        self._app = app
        self._keys = [key.encode() for key in keys]
        self._max_body_bytes = max_body_bytes
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or pass on what is not HTTP."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if ACCEPTED_ID.fullmatch(given) else uuid.uuid4().hex
        scope["request_id"] = request_id
        began, status = time.perf_counter(), 500

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        try:
            await self._serve(scope, receive, send_with_id, headers)
        finally:
            self._count(scope, status, time.perf_counter() - began)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, headers: Headers) -> None:
        try:
            self._check_key(headers)
            receive = await self._bounded_body(receive, headers)
        except AssayError as error:
            response = problem_response(error, scope["request_id"])
            response.headers["Connection"] = "close"
            await response(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _check_key(self, headers: Headers) -> None:
        if not self._keys:
            return
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        key = bearer.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        if not key:
            raise Unauthorized("this server wants an API key", hint="Authorization: Bearer KEY")
        matches = [secrets.compare_digest(key.encode(), known) for known in self._keys]
        if not any(matches):
            raise Forbidden("this API key is not accepted")

    async def _bounded_body(self, receive: Receive, headers: Headers) -> Receive:
        length = headers.get("content-length", "")
        if length.isdecimal():
            self._check_size(int(length))
            return receive
        if "transfer-encoding" not in headers:
            return receive
        return await self._collected(receive)

    async def _collected(self, receive: Receive) -> Receive:
        """A body of unannounced length, read up to the limit before anything is done with it."""
        body = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                break
            body += message.get("body", b"")
            self._check_size(len(body))
            more = message.get("more_body", False)
        pending: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def replay() -> Message:
            return pending.pop() if pending else await receive()

        return replay

    def _check_size(self, size: int) -> None:
        if size > self._max_body_bytes:
            raise RequestTooLarge(
                f"the body is larger than {self._max_body_bytes} bytes", hint="split the request"
            )

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "unmatched")
        self._metrics.requests.labels(route, str(status)).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
