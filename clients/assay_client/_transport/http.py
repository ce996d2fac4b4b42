"""The HTTP library, which only this file imports. Its errors are translated to ours here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import httpcore2
import httpx2

from assay_client._transport.body import ENCODINGS, ReplyBody
from assay_client._transport.steps import Send
from assay_client.errors import APIConnectionError, APITimeoutError, ProtocolError
from assay_client.types import Response

HTTPClient = httpx2.Client
AsyncHTTPClient = httpx2.AsyncClient

_CONNECT_TIMEOUT_SECONDS = 5.0
# The expiry is below the five seconds after which common servers drop an idle connection, so that a
# request is rarely sent into a closing one.
_LIMITS = httpx2.Limits(max_connections=512, max_keepalive_connections=128, keepalive_expiry=4.0)

_seconds_left: ContextVar[Callable[[], float]] = ContextVar("_seconds_left")


def new_client() -> HTTPClient:
    """Return a pool of connections for `Client`, which observes the deadline of each exchange."""
    client = httpx2.Client(limits=_LIMITS)
    # The library has no public way to give a client its network; it has one for the pool below.
    for transport in (client._transport, *client._mounts.values()):
        if transport is not None:
            transport._pool._network_backend = _DeadlineBackend()  # type: ignore[attr-defined]
    return client


def new_async_client() -> AsyncHTTPClient:
    """Return a pool of connections for `AsyncClient`."""
    return httpx2.AsyncClient(limits=_LIMITS)


def perform(client: HTTPClient, send: Send, now: Callable[[], float]) -> Response:
    """Send the request and read the whole response.

    Raises:
        APIConnectionError: there is no complete response.
        APITimeoutError: there is none in time.
        ProtocolError: the response cannot be decoded, or is larger than the client takes.
    """
    token = _seconds_left.set(lambda: send.deadline - now())
    try:
        with _translating_errors(send), client.stream(**_arguments(send)) as response:
            body = _body(send, response)
            for chunk in response.iter_raw():
                # An `http_client` of the caller's own observes no deadline.
                if now() > send.deadline:
                    raise _too_late(send)
                body.add(chunk)
            return _to_response(response, body)
    finally:
        _seconds_left.reset(token)


async def perform_async(client: AsyncHTTPClient, send: Send, now: Callable[[], float]) -> Response:
    """Send the request and read the whole response, as `perform` does."""
    try:
        return await asyncio.wait_for(_exchange(client, send), send.deadline - now())
    except asyncio.TimeoutError:
        raise _too_late(send) from None


async def _exchange(client: AsyncHTTPClient, send: Send) -> Response:
    with _translating_errors(send):
        async with client.stream(**_arguments(send)) as response:
            body = _body(send, response)
            async for chunk in response.aiter_raw():
                body.add(chunk)
            return _to_response(response, body)


class _DeadlineBackend(httpcore2.SyncBackend):
    """A network whose streams end with the exchange's deadline.

    The library's own time-outs are for each read, which a server that sends a byte now and then
    never reaches.
    """

    def connect_tcp(self, *args: Any, **kwargs: Any) -> httpcore2.NetworkStream:
        """Connect to a server."""
        return _DeadlineStream(super().connect_tcp(*args, **kwargs))


class _DeadlineStream(httpcore2.NetworkStream):
    """A stream that gives each read and write no more time than the exchange has left."""

    def __init__(self, stream: httpcore2.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Return up to that many bytes."""
        return self._stream.read(max_bytes, _bounded(timeout, httpcore2.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all bytes."""
        self._stream.write(buffer, _bounded(timeout, httpcore2.WriteTimeout))

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        """Return the stream with encryption."""
        seconds = _bounded(timeout, httpcore2.ConnectTimeout)
        return _DeadlineStream(self._stream.start_tls(ssl_context, server_hostname, seconds))

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()

    def get_extra_info(self, info: str) -> Any:
        """Return what the library asks about the connection."""
        return self._stream.get_extra_info(info)


def _bounded(timeout: float | None, expired: type[Exception]) -> float | None:
    """Return the seconds of a read or a write.

    Raises:
        Exception: the exchange has none left.
    """
    left = _seconds_left.get(lambda: timeout or 0.0)()
    if left <= 0:
        raise expired("the exchange's deadline has passed")
    return left if timeout is None else min(left, timeout)


def _arguments(send: Send) -> dict[str, Any]:
    return {
        "method": send.method,
        "url": send.url,
        "headers": {**send.headers, "Accept-Encoding": ", ".join(ENCODINGS)},
        "content": send.body,
        "timeout": httpx2.Timeout(
            send.timeout, connect=min(send.timeout, _CONNECT_TIMEOUT_SECONDS)
        ),
        "follow_redirects": False,
    }


def _body(send: Send, response: httpx2.Response) -> ReplyBody:
    return ReplyBody(response.headers.get("content-encoding"), send.max_reply_bytes, send.url)


def _to_response(response: httpx2.Response, body: ReplyBody) -> Response:
    headers: dict[str, str] = {}
    for name, value in response.headers.multi_items():
        known = headers.setdefault(name.lower(), value)
        if known != value:  # a proxy may repeat a header, such as X-Request-ID
            headers[name.lower()] = f"{known}, {value}"
    return Response(response.status_code, headers, body.finish())


def _too_late(send: Send) -> APITimeoutError:
    return APITimeoutError(f"the reply of {send.url} was not complete in time")


@contextmanager
def _translating_errors(send: Send) -> Iterator[None]:
    try:
        yield
    except httpx2.TimeoutException as error:
        kind = type(error).__name__
        raise APITimeoutError(f"no reply of {send.url} in time ({kind})") from error
    except httpx2.DecodingError as error:
        raise ProtocolError(f"the reply of {send.url} cannot be decoded") from error
    except httpx2.RequestError as error:
        kind = type(error).__name__
        raise APIConnectionError(f"no whole reply of {send.url} ({kind}: {error})") from error
