"""Calls of an ASGI app in its own process: a request as over HTTP, without a socket."""

import asyncio
from collections.abc import Mapping
from urllib.parse import unquote

from starlette.types import ASGIApp, Message, Scope

Reply = tuple[int, dict[str, str], bytes]
"""Status, headers by lower-case name, body."""

# A name without a dot is accepted whatever ASSAY_ALLOWED_HOSTS says.
HOST = "localhost"


async def call_app(
    app: ASGIApp, method: str, path: str, headers: Mapping[str, str], body: bytes
) -> Reply:
    """Run one request through the app and return its whole reply.

    Args:
        app: the app, started.
        method: of HTTP.
        path: with its query, encoded.
        headers: of the request, besides its length and host.
        body: the whole body.
    """
    request: Message = {"type": "http.request", "body": body, "more_body": False}
    received = iter([request])
    status, reply_headers, parts = 500, {}, []

    async def receive() -> Message:
        for message in received:
            return message
        return await asyncio.Future[Message]()  # until the caller goes, which cancels this

    async def send(message: Message) -> None:
        nonlocal status, reply_headers
        if message["type"] == "http.response.start":
            status = message["status"]
            reply_headers = {
                name.decode("latin-1").lower(): value.decode("latin-1")
                for name, value in message.get("headers", ())
            }
        else:
            parts.append(message.get("body", b""))

    await app(_scope(method, path, {**headers, "host": HOST}, len(body)), receive, send)
    return status, reply_headers, b"".join(parts)


def _scope(method: str, path: str, headers: Mapping[str, str], length: int) -> Scope:
    raw_path, _, query = path.partition("?")
    fields = {name.lower(): value for name, value in headers.items()}
    if length:
        fields.setdefault("content-type", "application/json")
        fields["content-length"] = str(length)
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(raw_path),
        "raw_path": raw_path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [
            (name.encode("latin-1"), value.encode("latin-1")) for name, value in fields.items()
        ],
        "client": None,
        "server": (HOST, None),
    }
