"""The JSON codec of all routes: strict decoding, direct encoding of dataclasses."""

import asyncio
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from functools import partial
from typing import Any

import orjson
from fastapi import Request, Response
from pydantic import BaseModel

from assay.api.body_parts import LARGE_BYTES, check_parts
from assay.errors import InvalidRequest
from assay.types import InvalidValue

JSON = "application/json"
JSONDecodeError = orjson.JSONDecodeError
# The second parse holds the interpreter's lock, longer in a larger body: the event loop waits.
MAX_MARKED_BYTES = 2**20
MAX_INVALID_VALUES = 1024
PAGE_HEADERS = frozenset(("origin", "sec-fetch-site"))
# Where the hot route leaves the body's value for the app, which reports what is wrong with it.
PARSED = "assay.json"
MIN_INTEGER, MAX_INTEGER, MAX_DIGITS = -(2**63), 2**64 - 1, 20
NOT_A_NUMBER = "{} is no number of JSON"
NOT_UNICODE = "half of a surrogate pair is not Unicode text"


class StrictRequest(Request):
    """A request whose body refuses unbounded depth, and in which `InvalidValue` marks NaN,
    infinities and lone surrogates, unless it is large or deep: then the first is an error.
    """

    async def json(self) -> Any:
        """Return the body's value.

        Raises:
            JSONDecodeError: it has none; the text says where.
            AssayError: it has too many values or items, or a web page sent it without a type.
        """
        if PARSED in self.scope:
            return self.scope[PARSED]
        self._refuse_page()
        content = await self.body()
        try:
            value = await read_json(content)
        except JSONDecodeError as error:
            if len(content) > MAX_MARKED_BYTES:
                raise _with_place(error) from None
            # Every value is visited, which the event loop must not wait for.
            value = await asyncio.to_thread(_parse_marked, content, error)
        self.scope["route"].check_items(value, self.app.state.max_items)
        return value

    def _refuse_page(self) -> None:
        """Refuse a body without a type from a web page, which could send it to any server.

        Raises:
            InvalidRequest: the headers are a browser's, and name no type.
        """
        if "content-type" not in self.headers and not PAGE_HEADERS.isdisjoint(self.headers):
            raise InvalidRequest(
                "Content-Type: a web page must name it",
                hint="send a JSON object with Content-Type: application/json",
            )


async def read_json(content: bytes) -> Any:
    """Return the value of a JSON text. The values of a large one are counted first.

    Raises:
        JSONDecodeError: `content` is not strict JSON.
        RequestTooLarge: see `check_parts`.
    """
    if len(content) <= LARGE_BYTES:
        return parse_json(content)
    await check_parts(content)
    value = parse_json(content)
    await asyncio.sleep(0)
    return value


def parse_json(content: bytes) -> Any:
    """Return the value of a JSON text, whose values were counted if it is large.

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


def _parse_marked(content: bytes, error: JSONDecodeError) -> Any:
    """Return the value of a text that is JSON but for some values, which are marked.

    Raises:
        JSONDecodeError: the given error and its place, if more is wrong with the text, or if it
            is nested too deeply to visit every value.
    """
    number = partial(InvalidValue, "")
    try:
        value = json.loads(
            content.decode(), parse_constant=number, parse_float=_finite, parse_int=_integer
        )
        return _marked(value, "", iter(range(MAX_INVALID_VALUES)))
    except (ValueError, RecursionError):
        raise _with_place(error) from None


def _with_place(error: JSONDecodeError) -> JSONDecodeError:
    if not error.doc:  # a body that is no UTF-8 has no places
        return error
    message = f"{error.msg} at line {error.lineno} column {error.colno}"
    return JSONDecodeError(message, error.doc, error.pos)


def _integer(digits: str) -> int | float | InvalidValue:
    """Return an integer, as a float beyond 64 bits, as the fast codec does."""
    value = int(digits) if len(digits) <= MAX_DIGITS else MAX_INTEGER + 1
    return value if MIN_INTEGER <= value <= MAX_INTEGER else _finite(digits)


def _finite(digits: str) -> float | InvalidValue:
    value = float(digits)
    return value if math.isfinite(value) else InvalidValue("", digits)


def _marked(value: Any, place: str, left: Iterator[int]) -> Any:
    """Return a value in which each invalid value has its place and its problem.

    Raises:
        ValueError: there are more of them than are `left`.
    """
    match value:
        case dict():
            # An invalid name of a field is escaped, and then refused as any unknown name is.
            names = {name: name.encode(errors="backslashreplace").decode() for name in value}
            return {
                names[name]: _marked(part, _join(place, names[name]), left)
                for name, part in value.items()
            }
        case list():
            return [_marked(part, _join(place, index), left) for index, part in enumerate(value)]
        case InvalidValue():
            return _mark(place, NOT_A_NUMBER.format(value.problem), left)
        case str() if not _is_unicode(value):
            return _mark(place, NOT_UNICODE, left)
    return value


def _mark(place: str, problem: str, left: Iterator[int]) -> InvalidValue:
    if next(left, None) is None:
        raise ValueError("too many invalid values")
    return InvalidValue(place, problem)


def _join(place: str, part: str | int) -> str:
    return f"{place}.{part}" if place else str(part)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
