"""JsonRoute, the class of all routes that take JSON."""

from collections.abc import Callable, Coroutine
from functools import cached_property
from typing import Any, get_type_hints

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.requests import ClientDisconnect

from assay.api.disconnect import cancel_on_disconnect, disconnected_response
from assay.api.json import StrictRequest

PLAIN_PARAMETERS = frozenset(("request", "body", "timeout", "priority"))


class JsonRoute(APIRoute):
    """A route that takes strict JSON and cancels its work when the client disconnects."""

    @cached_property
    def parameters(self) -> frozenset[str]:
        """The names of the endpoint's parameters."""
        return frozenset(get_type_hints(self.endpoint)) - {"return"}

    @cached_property
    def body_type(self) -> type[BaseModel] | None:
        """The class of the body; None if the endpoint has parameters that no hot route reads.

        Parts of the path are such parameters where they are more than any text.
        """
        path = set(self.param_convertors)
        hints = get_type_hints(self.endpoint, include_extras=True)
        is_plain = self.parameters <= PLAIN_PARAMETERS | path and all(
            hints.get(name, str) is str for name in path
        )
        body = get_type_hints(self.endpoint).get("body")
        is_model = isinstance(body, type) and issubclass(body, BaseModel)
        return body if is_plain and is_model else None

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler with a strict codec, cancelled when the client disconnects."""
        handler = super().get_route_handler()

        async def answer(request: Request) -> Response:
            strict = StrictRequest(request.scope, request.receive)
            if request.method != "POST":
                return await handler(strict)
            try:
                await strict.body()
            except ClientDisconnect:
                return disconnected_response()
            return await cancel_on_disconnect(request.receive, handler(strict))

        return answer
