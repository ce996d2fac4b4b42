"""Strict reading of replies: a number is taken only where nothing is in doubt."""

import math
from collections.abc import Sequence
from typing import Any

import orjson

from assay_models.base import Raw
from assay_models.engines.errors import bad_reply
from assay_models.engines.http import Reply

JsonObject = dict[str, Any]

MAX_LOGIT = 3.4028234663852886e38
"""The largest number in fp32; no engine computes in a wider type."""
MAX_NAME = 512
"""Letters of a model's or version's name: they come into errors and logs."""


def parse_object(reply: Reply) -> JsonObject:
    """Return the JSON object in a reply.

    Raises:
        EngineError: it is none.
    """
    value = _parse(reply)
    if not isinstance(value, dict):
        raise bad_reply("it is no JSON object")
    return value


def parse_list(reply: Reply) -> list[Any]:
    """Return the JSON list in a reply.

    Raises:
        EngineError: it is none.
    """
    value = _parse(reply)
    if not isinstance(value, list):
        raise bad_reply("it is no JSON list")
    return value


def by_index(entries: object, expected: int) -> list[JsonObject]:
    """Return the entries in the order of their `index`.

    Raises:
        EngineError: there are more or fewer than expected, or an index is missing, no number, out
            of range or there twice.
    """
    checked = objects(entries, expected)
    ordered: list[JsonObject | None] = [None] * expected
    for entry in checked:
        index = entry.get("index")
        if type(index) is not int or not 0 <= index < expected or ordered[index] is not None:
            raise bad_reply("an entry's index is missing, out of range or there twice")
        ordered[index] = entry
    return [entry for entry in ordered if entry is not None]


def by_id(entries: object, ids: Sequence[str], found: Sequence[str | None]) -> list[JsonObject]:
    """Return the entries in the order of the ids that were sent.

    Args:
        entries: the entries of the reply.
        ids: the ids that were sent.
        found: the id in each entry; None in all of them where the engine repeats none.

    Raises:
        EngineError: the count differs, or an id is another call's or there twice.
    """
    checked = objects(entries, len(ids))
    if all(name is None for name in found):
        return checked
    by_name = dict(zip(found, checked, strict=True))
    if by_name.keys() != set(ids):
        raise bad_reply("its ids are not those of this call")
    return [by_name[name] for name in ids]


def objects(entries: object, expected: int) -> list[JsonObject]:
    """Return a list of that many JSON objects.

    Raises:
        EngineError: it is something else.
    """
    if not isinstance(entries, list) or len(entries) != expected:
        raise bad_reply(f"it does not have one entry for each of {expected} inputs")
    if not all(isinstance(entry, dict) for entry in entries):
        raise bad_reply("an entry is no JSON object")
    return entries


def numbers(values: object) -> Raw:
    """Return a list of finite numbers.

    Raises:
        EngineError: it is empty, no list, or holds something else.
    """
    if not isinstance(values, list) or not values:
        raise bad_reply("there is no list of numbers in the place of the logits")
    return tuple(number(value) for value in values)


def number(value: object) -> float:
    """Return a finite number; true and false are none.

    Raises:
        EngineError: it is none.
    """
    if type(value) not in (float, int):
        raise bad_reply("a logit is no number")
    assert isinstance(value, float | int)
    if not math.isfinite(value):
        raise bad_reply("a logit is not finite")
    if abs(value) > MAX_LOGIT:
        raise bad_reply("a logit is larger than any number in fp32")
    return float(value)


def text_at(entry: object, *path: str) -> str | None:
    """Return the text at a path of keys; None where there is no text."""
    value = _at(entry, path)
    return value if isinstance(value, str) else None


def name_at(entry: object, *path: str) -> str | None:
    """Return the name at a path of keys; None where there is no text.

    Raises:
        EngineError: it is longer than any name, or not printable.
    """
    name = text_at(entry, *path)
    if name is not None and (len(name) > MAX_NAME or not name.isprintable()):
        raise bad_reply("a name in its description is too long, or not printable")
    return name


def whole_at(entry: object, *path: str) -> int | None:
    """Return the whole number at a path of keys; None where there is none."""
    value = _at(entry, path)
    return value if type(value) is int else None


def _at(entry: object, path: Sequence[str]) -> object:
    for key in path:
        entry = entry.get(key) if isinstance(entry, dict) else None
    return entry


def _parse(reply: Reply) -> object:
    try:
        return orjson.loads(reply.body)
    except orjson.JSONDecodeError as error:
        raise bad_reply("it is no JSON, or holds NaN or an infinity") from error
