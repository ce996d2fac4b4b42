"""Typed access to JSON. Errors name the field that is missing or wrong, and never quote it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from assay_client.errors import ProtocolError


def read_json(body: bytes) -> Any:
    """Parse the body as JSON, without NaN and infinities.

    Raises:
        ProtocolError: it is not JSON, or holds a number that is not finite.
    """
    try:
        return json.loads(body, parse_constant=_refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError):
        pass
    # Raised outside of the handler, because a decoding error holds the whole body.
    raise ProtocolError("the reply is not JSON with finite numbers")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError("a number is out of range")
    return number


class Fields:
    """A JSON object, its place in the reply, and typed access to its fields.

    Each method raises a ProtocolError if the field is missing or has another type. Fields that are
    not read are ignored: a newer server may send more.
    """

    def __init__(self, value: object, place: str) -> None:
        if not isinstance(value, dict):
            raise ProtocolError(f"{place} should be an object, is {_kind(value)}")
        self.all: Mapping[str, Any] = value
        self._place = place

    def __contains__(self, name: str) -> bool:
        return self.all.get(name) is not None

    def text(self, name: str) -> str:
        """Return a string."""
        value = self._get(name)
        return value if isinstance(value, str) else self._wrong(name, "a string")

    def boolean(self, name: str) -> bool:
        """Return a boolean."""
        value = self._get(name)
        return value if isinstance(value, bool) else self._wrong(name, "a boolean")

    def integer(self, name: str) -> int:
        """Return an integer that is not negative."""
        value = self._get(name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            self._wrong(name, "a whole number")
        return value

    def number(self, name: str) -> float:
        """Return a finite number."""
        number = _number(self._get(name))
        return self._wrong(name, "a finite number") if number is None else number

    def number_or_none(self, name: str) -> float | None:
        """Return a finite number, or None for null; the field must be there."""
        return None if self._get(name) is None else self.number(name)

    def numbers(self, name: str) -> Mapping[str, float | None]:
        """Return an object of finite numbers and nulls."""
        inner = Fields(self._get(name), f"{self._place}.{name}")
        return {key: inner.number_or_none(key) for key in inner.all}

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of strings."""
        values = self.list(name)
        if not all(isinstance(value, str) for value in values):
            self._wrong(name, "a list of strings")
        return tuple(values)

    def ranks(self, name: str) -> tuple[int | None, ...]:
        """Return a list of whole numbers and nulls."""
        values = self.list(name)
        if any(value is not None and type(value) is not int for value in values):
            self._wrong(name, "a list of ranks")
        return tuple(values)

    def list(self, name: str) -> list[Any]:
        """Return a list of anything."""
        value = self._get(name)
        return value if isinstance(value, list) else self._wrong(name, "a list")

    def object(self, name: str) -> Fields:
        """Return an object with fields of its own."""
        return Fields(self._get(name), f"{self._place}.{name}")

    def objects(self, name: str) -> Iterator[Fields]:
        """Yield the objects of a list."""
        for index, value in enumerate(self.list(name)):
            yield Fields(value, f"{self._place}.{name}[{index}]")

    def fail(self, reason: str) -> NoReturn:
        """Raise a ProtocolError that names this object and the reason."""
        raise ProtocolError(f"{self._place} {reason}")

    def _get(self, name: str) -> Any:
        if name not in self.all:
            raise ProtocolError(f"{self._place}.{name} is missing")
        return self.all[name]

    def _wrong(self, name: str, wanted: str) -> NoReturn:
        found = _kind(self.all[name])
        raise ProtocolError(f"{self._place}.{name} should be {wanted}, is {found}")


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def _kind(value: object) -> str:
    kinds = {dict: "an object", list: "a list", str: "a string", bool: "a boolean"}
    return "null" if value is None else kinds.get(type(value), "a number")
