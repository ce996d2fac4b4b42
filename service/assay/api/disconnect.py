"""Cancellation of a request's work when its client disconnects."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from fastapi import Response
from starlette.types import Receive

CLIENT_CLOSED_REQUEST = 499


def disconnected_response() -> Response:
    """Return the reply to a client that has disconnected; it appears only in the metrics."""
    return Response(status_code=CLIENT_CLOSED_REQUEST)


async def cancel_on_disconnect(receive: Receive, work: Coroutine[Any, Any, Response]) -> Response:
    """Return the work's response, or cancel the work when the client disconnects.

    Queued entries without another waiter are then dropped before they cost compute.

    Args:
        receive: yields the client's messages after the body.
        work: the endpoint's coroutine. The connection is watched only once `work` has to wait,
            because watching takes a task.
    """
    task = asyncio.current_task()
    assert task is not None
    watch = _DisconnectWatch(task, receive)
    start = asyncio.get_running_loop().call_soon(watch.start)
    try:
        return await work
    except asyncio.CancelledError:
        if not watch.is_disconnected or task.cancelling() > 1:
            raise
        return disconnected_response()
    finally:
        start.cancel()
        watch.stop()


class _DisconnectWatch:
    """A watch on the client's connection that cancels a task when the client disconnects."""

    def __init__(self, task: asyncio.Task[Any], receive: Receive) -> None:
        self.is_disconnected = False
        self._task = task
        self._receive = receive
        self._waiting: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._waiting = asyncio.create_task(self._wait())

    def stop(self) -> None:
        if self.is_disconnected:
            self._task.uncancel()
        elif self._waiting is not None:
            self._waiting.cancel()

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.is_disconnected = True
        self._task.cancel()
