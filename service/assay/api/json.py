"""The JSON codec of all routes: strict decoding, direct encoding of dataclasses."""

from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any

import orjson
from fastapi import Request, Response
from pydantic import BaseModel

JSON = "application/json"
JSONDecodeError = orjson.JSONDecodeError


class StrictRequest(Request):
    """A request whose body refuses NaN, lone surrogates and unbounded depth."""

    async def json(self) -> Any:
        """Return the body's value."""
        return parse_json(await self.body())


def parse_json(content: bytes) -> Any:
    """Return the value of a JSON text.

    Raises:
        JSONDecodeError: `content` is not strict JSON.
    """
    return orjson.loads(content)


def is_json(content_type: bytes) -> bool:
    """Return whether a Content-Type header names JSON."""
    return content_type.partition(b";")[0].rstrip() == JSON.encode()


def json_response(value: Any, status: int = 200) -> Response:
    """Return a reply in JSON, from a dataclass, a pydantic model or plain values."""
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    assert is_dataclass(plain) or isinstance(plain, Mapping | list | float)
    return Response(orjson.dumps(plain), status, media_type=JSON)
