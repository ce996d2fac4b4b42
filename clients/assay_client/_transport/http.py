"""The only file that names the HTTP library. Its errors become ours here and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx2

from assay_client._transport.calls import Send
from assay_client._transport.requests import Reply
from assay_client.errors import APIConnectionError, APITimeoutError, ProtocolError

HTTPClient = httpx2.Client
AsyncHTTPClient = httpx2.AsyncClient

_CONNECT_S = 5.0
# Below the five seconds after which common servers drop an idle connection, so that a request is
# seldom sent into a closing one.
_LIMITS = httpx2.Limits(max_connections=512, max_keepalive_connections=128, keepalive_expiry=4.0)


def new_client() -> HTTPClient:
    """A pool of connections for `Client`."""
    return httpx2.Client(limits=_LIMITS)


def new_async_client() -> AsyncHTTPClient:
    """A pool of connections for `AsyncClient`."""
    return httpx2.AsyncClient(limits=_LIMITS)


def perform(client: HTTPClient, send: Send, now: Callable[[], float]) -> Reply:
    """Send the request and read the whole reply.

    Raises:
        APIConnectionError: no whole reply came.
        APITimeoutError: none came in time.
        ProtocolError: the reply cannot be decoded.
    """
    with _translated(send), client.stream(**_arguments(send)) as response:
        chunks = []
        for chunk in response.iter_bytes():
            _check_deadline(send, now)
            chunks.append(chunk)
        return _reply(response, chunks)


async def perform_async(client: AsyncHTTPClient, send: Send, now: Callable[[], float]) -> Reply:
    """As `perform`, awaited."""
    with _translated(send):
        async with client.stream(**_arguments(send)) as response:
            chunks = []
            async for chunk in response.aiter_bytes():
                _check_deadline(send, now)
                chunks.append(chunk)
            return _reply(response, chunks)


def _arguments(send: Send) -> dict[str, Any]:
    return {
        "method": send.method,
        "url": send.url,
        "headers": dict(send.headers),
        "content": send.body,
        "timeout": httpx2.Timeout(send.timeout, connect=min(send.timeout, _CONNECT_S)),
        "follow_redirects": False,
    }


def _reply(response: httpx2.Response, chunks: list[bytes]) -> Reply:
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Reply(response.status_code, headers, b"".join(chunks))


def _check_deadline(send: Send, now: Callable[[], float]) -> None:
    # The library's own limit holds for each read; a reply that trickles would never meet it.
    if now() > send.deadline:
        raise APITimeoutError(f"the reply of {send.url} was not whole in time")


@contextmanager
def _translated(send: Send) -> Iterator[None]:
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
