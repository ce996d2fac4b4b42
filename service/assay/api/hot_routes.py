"""The hot routes: plain Starlette routes in front of the app.

They answer well-formed requests without FastAPI's dependency solving.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, TypeGuard

from fastapi import Request
from pydantic import ValidationError
from starlette.routing import BaseRoute, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from assay.api.body_parts import LARGE_BYTES, check_parts
from assay.api.disconnect import cancel_on_disconnect, disconnected_response
from assay.api.errors import problem_response
from assay.api.json import PARSED, JSONDecodeError, is_json, parse_json
from assay.api.json_route import JsonRoute
from assay.api.middleware import Headers, caller_of, headers_of, read_body, replay
from assay.api.parameters import HEADERS, NO_PARAMETERS, read_parameters
from assay.errors import AssayError, InvalidRequest

KEYS = frozenset(HEADERS)
MALFORMED = object()


class HotEndpoint:
    """The ASGI endpoint of one hot route.

    It answers well-formed POST requests whose key has the route's scope, and passes all others to
    the app.

    Args:
        route: the route whose endpoint is called.
        app: the app, which solves dependencies and reports what is wrong with a request.
        max_items: the limit of a request's items.
        parsing: held by the one large body that is parsed.
    """

    def __init__(
        self, route: JsonRoute, app: ASGIApp, *, max_items: int, parsing: asyncio.Lock
    ) -> None:
        assert route.body_type is not None
        self._route = route
        self._validate, self._query_type = route.body_type.model_validate, route.query_type
        self._path_arguments = route.arguments & set(route.param_convertors)
        self._needed_scope = route.needed_scope
        self._app = app
        self._parsing = parsing
        self._max_items = max_items
        self._min_bytes_of_too_many_items = 2 * max_items  # each takes a byte and a comma

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["method"] != "POST" or self._needed_scope not in caller_of(scope).scopes:
            await self._app(scope, receive, send)
            return
        content = await read_body(receive)
        if content is None:
            await disconnected_response()(scope, receive, send)
            return
        scope["route"] = self._route
        try:
            headers = headers_of(scope)
            if len(content) > LARGE_BYTES:
                value = await self._parse_large(headers, content)
            else:
                value = self._parse(headers, content)
            arguments = self._arguments(scope, headers, value)
            if arguments is None:
                await self._app(scope, replay([content], receive), send)
                return
            del value, content  # they may be large, and the work long
            work = self._route.endpoint(Request(scope, receive), **arguments)
            response = await cancel_on_disconnect(receive, work)
        except AssayError as error:
            response = problem_response(error, scope)
        await response(scope, receive, send)

    async def _parse_large(self, headers: Headers, content: bytes) -> object:
        """Parse a large body, one in each iteration of the event loop: they may all come at once.

        Raises:
            RequestTooLarge: see `check_parts` and `_parse`.
        """
        await check_parts(content)
        async with self._parsing:
            value = self._parse(headers, content)
            await asyncio.sleep(0)
        return value

    def _parse(self, headers: Headers, content: bytes) -> object:
        """Return the body's value; `MALFORMED` if it is no JSON, or is not said to be.

        Raises:
            RequestTooLarge: there are more items than the server takes in one request.
        """
        if not is_json(headers.get(b"content-type", b"")):
            return MALFORMED
        try:
            value = parse_json(content)
        except JSONDecodeError:
            return MALFORMED
        if len(content) > self._min_bytes_of_too_many_items:
            self._route.check_items(value, self._max_items)
        return value

    def _arguments(self, scope: Scope, headers: Headers, value: object) -> dict[str, Any] | None:
        """Return the endpoint's arguments; None if any part of the request is malformed."""
        if value is MALFORMED:
            return None
        try:
            arguments = self._outer_arguments(scope, headers)
            arguments["body"] = self._validate(value)
        except (ValidationError, InvalidRequest):
            scope[PARSED] = value
            return None
        return arguments

    def _outer_arguments(self, scope: Scope, headers: Headers) -> dict[str, Any]:
        """Return the arguments from the path, the query and the headers."""
        path = scope["path_params"]
        arguments = {name: path[name] for name in self._path_arguments}
        if self._query_type is not None:
            is_bare = not path and not scope["query_string"] and KEYS.isdisjoint(headers)
            arguments["parameters"] = (
                NO_PARAMETERS if is_bare else read_parameters(self._query_type, scope, headers)
            )
        return arguments


class HotRoutes:
    """Middleware with the routes that need only their body, the scoring headers and the query.

    Args:
        app: serves every other request.
        routes: the app's routes, in its order.
        max_items: the limit of a request's items.
    """

    def __init__(self, app: ASGIApp, *, routes: Sequence[BaseRoute], max_items: int) -> None:
        parsing = asyncio.Lock()
        hot = [
            Route(route.path, HotEndpoint(route, app, max_items=max_items, parsing=parsing))
            for route in routes
            if _is_hot(route)
        ]
        self._app = app
        self._router = Router(hot, redirect_slashes=False, default=app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; pass other scopes (lifespan, websocket) to the app."""
        await (self._router if scope["type"] == "http" else self._app)(scope, receive, send)


def _is_hot(route: BaseRoute) -> TypeGuard[JsonRoute]:
    return (
        isinstance(route, JsonRoute)
        and "POST" in (route.methods or ())
        and route.body_type is not None
    )
