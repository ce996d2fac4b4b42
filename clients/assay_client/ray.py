"""Clients that call Assay on Ray Serve by deployment handle, without HTTP.

They have the methods, replies, errors and retries of `Client` and `AsyncClient`, and are for
processes of the same Ray cluster. Ray is imported by the first call.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from assay_client._transport.clock import Clock
from assay_client._transport.config import MAX_REPLY_BYTES, Config, find_key
from assay_client._transport.steps import Send
from assay_client.async_client import AsyncClient
from assay_client.client import Client
from assay_client.errors import APIConnectionError, APITimeoutError
from assay_client.types import Response

_SCHEME = "ray://"
_FIRST_RETRY_SECONDS = 1.0


class RayClient(Client):
    """A synchronous client of an application of Ray Serve.

    Args:
        application: the name of the application.
        api_key: as for `BaseClient`, like all others.
        timeout: seconds that one call may take in all.
        max_retries: retries of a call; also those after the death of a replica.
        max_items_per_request: longer lists are sent in several requests.
        clock: the source of time and randomness.
        session_ids: whether a router with affinity gets the session id of a prompt.
    """

    def __init__(
        self,
        application: str = "assay",
        *,
        api_key: str | None = None,
        timeout: float = 600.0,
        max_retries: int = 4,
        max_items_per_request: int = 1024,
        clock: Clock | None = None,
        session_ids: bool = True,
    ) -> None:
        config = _config(
            application, api_key, timeout, max_retries, max_items_per_request, session_ids
        )
        self._set_up(config, None, clock or Clock())

    def _reset(self) -> None:
        super()._reset()
        self._application = _Application(self._config.base_urls[0])

    def _sender(self) -> Callable[[Send], Response]:
        return lambda send: self._application.perform(send, self._clock.monotonic)


class AsyncRayClient(AsyncClient):
    """An asynchronous client of an application of Ray Serve, with the arguments of `RayClient`.

    Args:
        gather: as for `AsyncClient`.
    """

    def __init__(
        self,
        application: str = "assay",
        *,
        api_key: str | None = None,
        timeout: float = 600.0,
        max_retries: int = 4,
        max_items_per_request: int = 1024,
        clock: Clock | None = None,
        session_ids: bool = True,
        gather: bool = False,
    ) -> None:
        config = _config(
            application, api_key, timeout, max_retries, max_items_per_request, session_ids, gather
        )
        self._set_up(config, None, clock or Clock())

    def _reset(self) -> None:
        super()._reset()
        self._application = _Application(self._config.base_urls[0])

    def _sender(self) -> Callable[[Send], Awaitable[Response]]:
        return lambda send: self._application.perform_async(send, self._clock.monotonic)


def _config(
    application: str,
    api_key: str | None,
    timeout: float,
    max_retries: int,
    max_items_per_request: int,
    session_ids: bool,
    gather: bool = False,
) -> Config:
    if not isinstance(application, str) or not application:
        raise ValueError("application must be the name of a Serve application, such as 'assay'")
    return Config(
        base_urls=(_SCHEME + application,),
        api_key=find_key(api_key),
        timeout=timeout,
        max_retries=max_retries,
        max_items_per_request=max_items_per_request,
        max_reply_bytes=MAX_REPLY_BYTES,
        gather=gather,
        session_ids=session_ids,
    )


class _Application:
    """An application of Serve, connected to by the first call."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._handle: Any = None

    def perform(self, send: Send, now: Callable[[], float]) -> Response:
        """Call a replica and wait for its reply.

        Raises:
            APIConnectionError: no replica replied.
            APITimeoutError: none replied in time.
        """
        with _translating_errors(send) as refused:
            call = self._call(send)
            try:
                return Response(*call.result(timeout_s=send.deadline - now()))
            except TimeoutError:
                call.cancel()
                raise
        return refused[0]

    async def perform_async(self, send: Send, now: Callable[[], float]) -> Response:
        """Call a replica and await its reply, as `perform` does."""
        with _translating_errors(send) as refused:
            call = await asyncio.to_thread(self._call, send) if self._handle is None else None
            call = call or self._call(send)
            try:
                return Response(*await asyncio.wait_for(_awaited(call), send.deadline - now()))
            except (asyncio.TimeoutError, asyncio.CancelledError):
                call.cancel()
                raise
        return refused[0]

    def _call(self, send: Send) -> Any:
        """Send the request to a replica; return the handle's response, which may be waited for."""
        handle = self._connect().options(
            method_name="request", session_id=send.headers.get("X-Session-ID", "")
        )
        path = send.url[len(self._url) :]
        return handle.remote(send.method, path, dict(send.headers), send.body or b"")

    def _connect(self) -> Any:
        if self._handle is None:
            import ray
            from ray import serve

            if not ray.is_initialized():
                ray.init(address="auto")  # never a cluster of its own
            self._handle = serve.get_app_handle(self._url[len(_SCHEME) :])
        return self._handle


async def _awaited(call: Any) -> Any:
    return await call


@contextmanager
def _translating_errors(send: Send) -> Iterator[list[Response]]:
    """Turn Ray's errors to those of the client, and its refusal of a full queue to a response.

    Yields:
        The response of a refusal, after the block.
    """
    from ray.exceptions import RayError
    from ray.serve.exceptions import BackPressureError, RayServeException

    refused: list[Response] = []
    try:
        yield refused
    except BackPressureError as error:
        refused.append(_refusal(error))
    except (TimeoutError, asyncio.TimeoutError) as error:
        raise APITimeoutError(f"no reply of {send.url} in time") from error
    except (RayError, RayServeException, ConnectionError) as error:
        kind = type(error).__name__
        raise APIConnectionError(f"no reply of {send.url} ({kind}: {error})") from error


def _refusal(error: Any) -> Response:
    """Return the response that Serve's proxy sends in this case."""
    seconds = _FIRST_RETRY_SECONDS if error.retry_after_s is None else error.retry_after_s
    problem = {"code": "overloaded", "detail": str(error), "retryable": True}
    headers = {"retry-after": f"{seconds:g}", "content-type": "application/problem+json"}
    return Response(429, headers, json.dumps(problem).encode())
