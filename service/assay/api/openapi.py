"""The OpenAPI document, with what the page at /docs needs: API keys, and requests that work."""

import asyncio
import base64
import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import fastapi_offline
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from assay.api.examples import EXAMPLES, Example

ASSETS = "/static-offline-docs"
SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key of the server."},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
# Of parameters in a path; the model's is its example's.
VALUES = {"rollout": "0-0", "run": "my-run", "version": 2}
# A server without keys takes requests without any.
SECURITY: list[dict[str, list[str]]] = [{"bearer": []}, {"header": []}, {}]


# The pages run the files of this server, and the scripts within them, named by their digests.
POLICY = (
    "default-src 'none'; script-src 'self' {scripts}; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
INLINE_SCRIPT = re.compile(rb"<script>(.*?)</script>", re.DOTALL)


class RestrictedPage:
    """An HTML page with a policy that allows no content from elsewhere, and no frame around it.

    Args:
        app: the page.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the page."""
        start: Message = {}

        async def send_restricted(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
                return
            policy = (b"content-security-policy", _policy(message["body"]))
            await send({**start, "headers": [*start["headers"], policy]})
            await send(message)

        await self._app(scope, receive, send_restricted)


def restrict_pages(app: FastAPI) -> None:
    """Restrict the pages that the framework adds to an app; to be called before all other routes
    are added.
    """
    for route in app.routes:
        if isinstance(route, APIRoute):
            route.app = RestrictedPage(route.app)


def _policy(page: bytes) -> bytes:
    digests = [hashlib.sha256(script).digest() for script in INLINE_SCRIPT.findall(page)]
    scripts = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return POLICY.format(scripts=scripts).encode()


def public_paths() -> frozenset[str]:
    """Return the paths of the document, its pages and their files: the same on every server."""
    files = Path(fastapi_offline.__file__).with_name("static").iterdir()
    pages = ("/docs", "/redoc", "/openapi.json")
    return frozenset([*pages, *(f"{ASSETS}/{file.name}" for file in files)])


class Document:
    """The app's OpenAPI document, which is built and encoded once, in a thread.

    Both take longer than other requests may wait, and anybody may ask for the document.

    Args:
        app: the documented app, with all its routes.
    """

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._encoding = asyncio.Lock()
        self._encoded: dict[str, tuple[bytes, str]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the document, or 304 if the caller's copy is current."""
        content, tag = await self.encoded(scope.get("root_path", ""))
        headers = {"ETag": tag, "Cache-Control": "no-cache"}
        known = Request(scope).headers.get("if-none-match", "")
        if tag in [other.strip().removeprefix("W/") for other in known.split(",")]:
            response = Response(status_code=304, headers=headers)
        else:
            response = Response(content, headers=headers, media_type="application/json")
        await response(scope, receive, send)

    async def encoded(self, root_path: str) -> tuple[bytes, str]:
        """Return the document of a server below this path, and its ETag."""
        async with self._encoding:
            if root_path not in self._encoded:
                self._encoded[root_path] = await asyncio.to_thread(self._encode, root_path)
        return self._encoded[root_path]

    def _encode(self, root_path: str) -> tuple[bytes, str]:
        document = self._app.openapi()
        if root_path:
            document = {**document, "servers": [{"url": root_path}]}
        content = bytes(JSONResponse(document).body)
        return content, f'"{hashlib.blake2b(content, digest_size=16).hexdigest()}"'


def add_document(app: FastAPI) -> None:
    """Serve a document that is encoded once in the place of the framework's."""
    (route,) = (
        route for route in app.routes if isinstance(route, Route) and route.path == app.openapi_url
    )
    route.app = Document(app)


def add_examples(app: FastAPI) -> None:
    """Complete the app's OpenAPI document when it is built: keys, and an example of each body."""
    build = app.openapi

    def openapi() -> dict[str, Any]:
        document = build()
        if "security" not in document:
            _complete(document)
        return document

    # As FastAPI documents it: `FastAPIOffline` is a function, and no class to derive from.
    app.openapi = openapi  # type: ignore[method-assign]


def _complete(document: dict[str, Any]) -> None:
    document["security"] = SECURITY
    document["components"]["securitySchemes"] = SCHEMES
    for path, operation in _operations(document["paths"]):
        example = _example(operation)
        if example is not None:
            operation["requestBody"]["content"]["application/json"]["example"] = example.body
        for parameter in operation.get("parameters", ()):
            if _is_filled_in(parameter, path, example):
                model = "code" if example is None else example.model
                parameter["example"] = VALUES.get(parameter["name"], model)


def _operations(paths: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in paths.items():
        for operation in methods.values():
            yield path, operation


def _example(operation: Mapping[str, Any]) -> Example | None:
    """Return the example of an operation's body, of several kinds the first; None without one."""
    content = operation.get("requestBody", {}).get("content", {})
    names = re.findall(r"#/components/schemas/(\w+)", str(content.get("application/json")))
    return EXAMPLES[names[0]] if names and names[0] in EXAMPLES else None


def _is_filled_in(parameter: Mapping[str, Any], path: str, example: Example | None) -> bool:
    """Return whether a parameter gets a value: it is in the path, or the only place of a model."""
    if parameter["in"] == "path":
        return parameter["name"] == "model" or parameter["name"] in VALUES
    has_model = "{model}" in path or (example and example.body.get("model") == example.model)
    return parameter["in"] == "query" and parameter["name"] == "model" and not has_model
