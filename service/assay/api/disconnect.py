"""Cancellation of a request's work when its caller disconnects."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from fastapi import Response
from starlette.types import Receive

CLIENT_CLOSED_REQUEST = 499


def disconnected_response() -> Response:
    """Return the reply to a caller that has left; it only appears in counts."""
    return Response(status_code=CLIENT_CLOSED_REQUEST)


async def cancel_on_disconnect(receive: Receive, work: Coroutine[Any, Any, Response]) -> Response:
    """Return the work's response; cancel the work once the caller has disconnected, so that
    entries without another waiter are dropped before they cost compute.

    Args:
        receive: yields the caller's messages after the body.
        work: is watched only from the first time it has to wait, because watching takes a task.
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
        return disconnected_response()
    finally:
        beginning.cancel()
        watch.end()


class _Watch:
    """Cancels a task when the caller disconnects."""

    def __init__(self, task: asyncio.Task[Any], receive: Receive) -> None:
        self.left = False
        self._task = task
        self._receive = receive
        self._waiting: asyncio.Task[None] | None = None

    def begin(self) -> None:
        self._waiting = asyncio.create_task(self._wait())

    def end(self) -> None:
        if self.left:
            self._task.uncancel()
        elif self._waiting is not None:
            self._waiting.cancel()

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.left = True
        self._task.cancel()
