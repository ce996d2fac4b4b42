"""JsonRoute, the class of all routes that take JSON."""

from collections.abc import Callable, Coroutine, Iterator, Sequence
from functools import cached_property
from typing import Any, get_args, get_type_hints

from fastapi import Request, Response
from pydantic import BaseModel
from starlette.requests import ClientDisconnect

from assay.api.disconnect import cancel_on_disconnect, disconnected_response
from assay.api.json import StrictRequest
from assay.api.parameters import ScoringQuery
from assay.api.schemas import ItemList
from assay.api.scopes import ScopedRoute
from assay.errors import RequestTooLarge

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

    @cached_property
    def item_lists(self) -> tuple[tuple[str, ...], ...]:
        """The places in the body of the lists with an entry for each item."""
        hints = get_type_hints(self.endpoint).values()
        bodies = [hint for hint in hints if isinstance(hint, type) and issubclass(hint, BaseModel)]
        return tuple(place for body in bodies for place in _item_lists(body))

    def check_items(self, value: object, limit: int) -> None:
        """Check the number of a request's items before they are validated.

        Args:
            value: the body's value, of any shape.
            limit: the number of items that the server takes in one request.

        Raises:
            RequestTooLarge: there are more.
        """
        for place in self.item_lists:
            count = max((len(items) for items in _lists_at(value, place)), default=0)
            if count > limit:
                raise RequestTooLarge(
                    f"{count} items, the limit is {limit}", hint="split the request"
                )

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


def _item_lists(body: type[BaseModel]) -> Iterator[tuple[str, ...]]:
    """Yield the places of a class of bodies that are marked as `ItemList`."""
    for name, field in body.model_fields.items():
        if any(isinstance(mark, ItemList) for mark in field.metadata):
            yield (name,)
        for part in get_args(field.annotation):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from ((name, *place) for place in _item_lists(part))


def _lists_at(value: object, place: Sequence[str]) -> Iterator[list[object]]:
    """Yield the lists at a place; above it there are objects, and lists of objects."""
    if not place and isinstance(value, list):
        yield value
    elif place and isinstance(value, dict):
        yield from _lists_at(value.get(place[0]), place[1:])
    elif isinstance(value, list):
        for part in value:
            yield from _lists_at(part, place)
