"""The HTTP library, which only this file imports. Its errors are translated to ours here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx2

from assay_client._transport.steps import Send
from assay_client.errors import APIConnectionError, APITimeoutError, ProtocolError
from assay_client.types import Response

HTTPClient = httpx2.Client
AsyncHTTPClient = httpx2.AsyncClient

_CONNECT_TIMEOUT_SECONDS = 5.0
# The expiry is below the five seconds after which common servers drop an idle connection, so that a
# request is rarely sent into a closing one.
_LIMITS = httpx2.Limits(max_connections=512, max_keepalive_connections=128, keepalive_expiry=4.0)


def new_client() -> HTTPClient:
    """Return a pool of connections for `Client`."""
    return httpx2.Client(limits=_LIMITS)


def new_async_client() -> AsyncHTTPClient:
    """Return a pool of connections for `AsyncClient`."""
    return httpx2.AsyncClient(limits=_LIMITS)


def perform(client: HTTPClient, send: Send, now: Callable[[], float]) -> Response:
    """Send the request and read the whole response.

    Raises:
        APIConnectionError: there is no complete response.
        APITimeoutError: there is none in time.
        ProtocolError: the response cannot be decoded.
    """
    with _translating_errors(send), client.stream(**_arguments(send)) as response:
        chunks = []
        for chunk in response.iter_bytes():
            _check_deadline(send, now)
            chunks.append(chunk)
        return _to_response(response, chunks)


async def perform_async(client: AsyncHTTPClient, send: Send, now: Callable[[], float]) -> Response:
    """Send the request and read the whole response, as `perform` does."""
    with _translating_errors(send):
        async with client.stream(**_arguments(send)) as response:
            chunks = []
            async for chunk in response.aiter_bytes():
                _check_deadline(send, now)
                chunks.append(chunk)
            return _to_response(response, chunks)


def _arguments(send: Send) -> dict[str, Any]:
    return {
        "method": send.method,
        "url": send.url,
        "headers": dict(send.headers),
        "content": send.body,
        "timeout": httpx2.Timeout(
            send.timeout, connect=min(send.timeout, _CONNECT_TIMEOUT_SECONDS)
        ),
        "follow_redirects": False,
    }


def _to_response(response: httpx2.Response, chunks: list[bytes]) -> Response:
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Response(response.status_code, headers, b"".join(chunks))


def _check_deadline(send: Send, now: Callable[[], float]) -> None:
    # The library's own limit is for each read: a response that trickles would never reach it.
    if now() > send.deadline:
        raise APITimeoutError(f"the reply of {send.url} was not whole in time")


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
