"""HttpProtocol: uvicorn's protocol over llhttp, with limits that hold while bytes arrive."""

import asyncio
import secrets
from collections import deque
from collections.abc import Mapping
from typing import Any

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.server import ServerState

from assay.api.errors import problem_response
from assay.errors import AssayError, HeadersTooLarge, MalformedRequest, RequestTimeout, UriTooLong
from assay.server.connections import Connections

MAX_TARGET_BYTES = 8_192
MAX_HEADER_BYTES = 65_536
MAX_HEADERS = 256
# A head that is not complete, in bytes as they arrive.
MAX_HEAD_BYTES = 2 * MAX_HEADER_BYTES
# Bytes around the body's own: sizes, extensions and trailers of chunks.
MAX_CHUNK_FRAMING, MAX_FRAMING_PER_BYTE = MAX_HEADER_BYTES, 2
MIN_BODY_RATE = 1_024
"""Bytes a second that a body has to bring, over each `io_timeout`."""
MAX_PIPELINED = 32
"""Requests that may wait on a connection for the reply to an earlier one."""
LINGER_SECONDS = 2.0
"""After an error: a client that is still sending would lose it if the socket closed at once."""

BEGINNING = -1  # of a head or a body: its first segment is not counted

NO_SCOPE: Mapping[str, Any] = {}
SILENT, EVICTED, UNREAD, PIPELINED = "silent", "evicted", "unread", "pipelined"


class HttpProtocol(HttpToolsProtocol):
    """One connection. It refuses what has no end, long before it takes memory.

    A limit that is exceeded is answered with a problem detail, after the replies to the requests
    before it, and the connection is closed. `Upgrade` is ignored, as a server may do (RFC 9110,
    section 7.8), so that the request is served with its body. `of` makes the class for the
    connections of one process.

    Args:
        config: uvicorn's configuration.
        server_state: uvicorn's state.
        app_state: the state of the app's lifespan.
    """

    # Of the class, because setting them would take a microsecond of each connection.
    deadline = 0.0
    _running: RequestResponseCycle | None = None
    _refusal: AssayError | None = None
    _is_head_open = _is_body_open = _is_refused = False
    _header_bytes = _body_bytes = _body_begin = _window_begin = _unsent = 0
    _head_bytes = _framing = BEGINNING
    _unsent_since = 0.0

    _all: Connections

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._held: dict[RequestResponseCycle, int] = {}

    @classmethod
    def of(cls, connections: Connections) -> "type[HttpProtocol]":
        """Return the class of the protocols of these connections, as uvicorn takes it."""
        return type(cls.__name__, (cls,), {"_all": connections})

    @property
    def has_open_body(self) -> bool:
        """Whether the server waits for the rest of the running request's body."""
        is_open = self._is_body_open and not self._is_refused
        return is_open and self._is_unanswered and self.cycle is self._running

    @property
    def _is_request_partial(self) -> bool:
        return self.has_open_body or (self._is_head_open and not self._is_refused)

    @property
    def _is_unanswered(self) -> bool:
        return self._running is not None and not self._running.response_complete

    # The transport's events.

    # The transport's type is uvicorn's, which is narrower than asyncio's.
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request, or refuse the connection if there is no room for it."""
        super().connection_made(transport)
        has_room = self._all.has_room()
        self._all.add(self)
        if has_room:
            self._wait(self._all.io_timeout)
        else:
            error = self._all.overloaded()
            self._is_refused = True
            self._all.count(error.code)
            self._write(error)
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let every unanswered request know, also one with others behind it."""
        self._all.remove(self)
        self._all.bodies.held -= sum(self._held.values())
        self._held.clear()
        self.pipeline.clear()
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse the next bytes, and check what they add to an unfinished head or body."""
        if self._is_refused:
            return
        body_bytes = self._body_bytes
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError as error:
            self._fail(error.__context__)
            return
        if self._is_body_open:
            self._on_partial_body(len(data) - (self._body_bytes - body_bytes))
        elif self._is_head_open:
            self._on_partial_head(len(data))
        if self._all.bodies.is_exceeded and not self._all.free_bodies():
            self.refuse(self._all.bodies.refusal())

    # The parser's events.

    def on_message_begin(self) -> None:
        """Begin a request, unless too many wait on this connection already."""
        if len(self.pipeline) >= MAX_PIPELINED:
            raise _TooManyPipelined
        super().on_message_begin()
        self._is_head_open = True
        self._header_bytes, self._head_bytes = 0, BEGINNING

    def on_url(self, url: bytes) -> None:
        """Take a part of the request's target."""
        self.url += url
        if len(self.url) > MAX_TARGET_BYTES:
            raise UriTooLong(
                f"the URL is longer than {MAX_TARGET_BYTES} bytes", hint="send a body instead"
            )

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header. One behind the body, a trailer, is dropped."""
        if self._is_body_open:
            return
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > MAX_HEADER_BYTES or len(self.headers) >= MAX_HEADERS:
            raise _headers_too_large()
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start the request; its body may still be on the way."""
        if self.parser.should_upgrade():
            return
        super().on_headers_complete()
        self._is_head_open, self._is_body_open = False, True
        self._body_begin, self._framing = self._body_bytes, BEGINNING

    def on_body(self, body: bytes) -> None:
        """Hold a part of the body."""
        self._body_bytes += len(body)
        if not self.cycle.response_complete:
            self._all.bodies.held += len(body)
            self._held[self.cycle] = self._held.get(self.cycle, 0) + len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End the wait for the body; the server works on the request now."""
        if self._is_head_open:  # it offers an upgrade: the parser has skipped its body
            return
        self._is_body_open = False
        super().on_message_complete()
        if self._is_unanswered:
            self._all.stop_waiting(self)
        else:
            self._wait(self._all.keep_alive)

    # The requests.

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """Start the next request of the connection, or wait for it."""
        self.server_state.total_requests += 1
        assert self._running is not None
        self._release(self._running)
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            if self.has_open_body:
                self._wait(self._all.io_timeout)
        elif self._refusal is not None:
            self._answer(self._refusal)
        else:
            is_partial = self._is_head_open or self._is_body_open
            self._wait(self._all.io_timeout if is_partial else self._all.keep_alive)

    # The limits.

    def refuse(self, error: AssayError) -> None:
        """Answer the latest request with an error, after those before it, and close."""
        self._refuse(error, self.cycle)

    def _refuse(self, error: AssayError, cycle: RequestResponseCycle | None) -> None:
        """Answer with an error and close. `cycle` is None if the request's head is at fault."""
        self._is_refused = True
        self._all.count(error.code)
        self._all.stop_waiting(self)
        if cycle is not None:
            self._release(cycle)
        if cycle is not None and cycle is self._running:
            self._refuse_running(cycle, error)
            return
        self.pipeline = deque(pair for pair in self.pipeline if pair[0] is not cycle)
        if self._is_unanswered:
            self._refusal = error
        else:
            self._answer(error)

    def _refuse_running(self, cycle: RequestResponseCycle, error: AssayError) -> None:
        if cycle.response_started:
            self.transport.close()
            return
        self._answer(error, cycle.scope)
        cycle.disconnected = True
        cycle.message_event.set()

    def _release(self, cycle: RequestResponseCycle) -> None:
        self._all.bodies.held -= self._held.pop(cycle, 0)

    def end_wait(self) -> None:
        """Give up the wait for the client's next bytes."""
        if self._is_request_partial:
            part = "headers" if self._is_head_open else "body"
            error = RequestTimeout(
                f"the request's {part} did not arrive within {self._all.io_timeout:g} seconds",
                hint=f"send a body at {MIN_BODY_RATE} bytes a second or more",
            )
            self._refuse(error, None if self._is_head_open else self.cycle)
            return
        if self.cycle is None and not self._is_refused:
            self._all.count(SILENT)
        self.transport.close()

    def evict(self) -> None:
        """Close at once, for another connection."""
        if self._is_request_partial:
            scope = self.cycle.scope if self.has_open_body else NO_SCOPE
            self._write(self._all.overloaded(), scope)
        self._is_refused = True
        self._all.count(EVICTED)
        self.transport.close()

    def check_unread(self, now: float) -> None:
        """Abort the connection if its client has read nothing of a reply for too long."""
        unsent = self.transport.get_write_buffer_size()
        if not unsent or unsent < self._unsent:
            self._unsent_since = now
        self._unsent = unsent
        if unsent and now - self._unsent_since > self._all.io_timeout:
            self._all.count(UNREAD)
            self.transport.abort()

    def shutdown(self) -> None:
        """Close the connection, or let the running request be its last."""
        if self._is_refused and not self._is_unanswered:
            self.transport.close()
        else:
            super().shutdown()

    def _wait(self, seconds: float) -> None:
        self._all.wait(self, self.loop.time() + seconds)

    def _on_partial_head(self, size: int) -> None:
        if self._head_bytes != BEGINNING:
            self._head_bytes += size
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(_headers_too_large(), None)
            return
        self._head_bytes = 0
        if not self._is_unanswered:
            self._wait(self._all.io_timeout)

    def _on_partial_body(self, framing: int) -> None:
        """Check a body of which not all has arrived; `framing` is in bytes."""
        size = self._body_bytes - self._body_begin
        if self._framing == BEGINNING:
            self._framing, self._window_begin = 0, self._body_bytes
            if self.has_open_body:
                self._wait(self._all.io_timeout)
            return
        self._framing += framing
        if self._framing > MAX_CHUNK_FRAMING + MAX_FRAMING_PER_BYTE * size:
            self.refuse(
                MalformedRequest("the chunks of the body are too small, or nearly all extensions")
            )
        elif self._body_bytes - self._window_begin >= MIN_BODY_RATE * self._all.io_timeout:
            self._window_begin = self._body_bytes
            if self.has_open_body:  # behind those that bring nothing, for evictions too
                self._wait(self._all.io_timeout)

    def _fail(self, cause: BaseException | None) -> None:
        """Refuse the request for which the parser stopped."""
        if isinstance(cause, _TooManyPipelined):
            self._is_refused = True
            self._all.count(PIPELINED)
            self.cycle.keep_alive = False
            return
        malformed = MalformedRequest("this is not HTTP/1.1", hint="TLS and HTTP/2 need a proxy")
        error = cause if isinstance(cause, AssayError) else malformed
        self._refuse(error, self.cycle if self._is_body_open else None)

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Parse the request again without its `Upgrade`; the parser skips the body of one."""
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._refuse(MalformedRequest("this server is no proxy"), None)
            return
        lines = [b"%s %s HTTP/%s" % (method, self.url, self.parser.get_http_version().encode())]
        lines += [b"%s: %s" % pair for pair in self.headers if pair[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._is_head_open = False
        self.data_received(b"\r\n".join([*lines, b"", rest]))

    def _answer(self, error: AssayError, scope: Mapping[str, Any] = NO_SCOPE) -> None:
        """Write an error and read on until the client has closed, or for a while."""
        self._is_refused = True
        self._write(error, scope)
        if not self.transport.is_closing():
            self.transport.write_eof()
            self.flow.resume_reading()
            self._wait(LINGER_SECONDS)

    def _write(self, error: AssayError, scope: Mapping[str, Any] = NO_SCOPE) -> None:
        request_id = scope.get("request_id") or secrets.token_hex(16)
        response = problem_response(error, {**scope, "request_id": request_id})
        headers = [*self.server_state.default_headers, *response.raw_headers]
        headers.append((b"connection", b"close"))
        lines = [b"%s: %s\r\n" % pair for pair in headers]
        body = b"" if scope.get("method") == "HEAD" else bytes(response.body)
        self.transport.write(b"".join([STATUS_LINE[error.status], *lines, b"\r\n", body]))


class _TooManyPipelined(Exception):
    """More requests wait on a connection than may."""


def _headers_too_large() -> HeadersTooLarge:
    return HeadersTooLarge(
        f"the headers are larger than {MAX_HEADER_BYTES} bytes, or more than {MAX_HEADERS}",
        hint="send fewer",
    )
