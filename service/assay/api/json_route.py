"""JsonRoute, the class of all routes that take JSON."""

from collections.abc import Callable, Coroutine
from functools import cached_property
from typing import Any, get_args, get_type_hints

from fastapi import Request, Response
from pydantic import BaseModel
from starlette.requests import ClientDisconnect

from assay.api.disconnect import cancel_on_disconnect, disconnected_response
from assay.api.json import StrictRequest
from assay.api.parameters import ScoringQuery
from assay.api.scopes import ScopedRoute

PLAIN_PARAMETERS = frozenset(("request", "body", "parameters"))


class JsonRoute(ScopedRoute):
    """A route that takes strict JSON and cancels its work when the client disconnects.

    Parts of the path that the endpoint takes from `ForeignParameters` are listed in OpenAPI too.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        undeclared = set(self.param_convertors) - {part.name for part in self.dependant.path_params}
        if undeclared:
            self.openapi_extra = {
                "parameters": [
                    {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
                    for name in sorted(undeclared)
                ]
            }

    @cached_property
    def arguments(self) -> frozenset[str]:
        """The names of the endpoint's arguments."""
        return frozenset(get_type_hints(self.endpoint)) - {"return"}

    @cached_property
    def query_type(self) -> type[ScoringQuery] | None:
        """The class of the URL's query; None if the endpoint takes no `parameters`."""
        hint = get_type_hints(self.endpoint, include_extras=True).get("parameters")
        if hint is None:
            return None
        query: type[ScoringQuery] = get_type_hints(get_args(hint)[1].dependency)["query"]
        return query

    @cached_property
    def body_type(self) -> type[BaseModel] | None:
        """The class of the body; None if the endpoint has parameters that no hot route reads.

        Parts of the path are such parameters where they are more than any text.
        """
        path = set(self.param_convertors)
        hints = get_type_hints(self.endpoint, include_extras=True)
        is_plain = self.arguments <= PLAIN_PARAMETERS | path and all(
            hints.get(name, str) is str for name in path
        )
        body = get_type_hints(self.endpoint).get("body")
        is_model = isinstance(body, type) and issubclass(body, BaseModel)
        return body if is_plain and is_model else None

    def scoped_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler with a strict codec, cancelled when the client disconnects."""
        handler = super().scoped_handler()

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
