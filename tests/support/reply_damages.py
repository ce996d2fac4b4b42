"""Damages of the JSON of an engine's reply, of every protocol."""

from collections.abc import Callable
from typing import Any

Damage = Callable[[Any], Any]


def entries(reply: Any) -> list[Any]:
    """Return the list with an entry for each row."""
    if isinstance(reply, list):
        return reply
    found: list[Any] = reply["data"] if "data" in reply else reply["results"]
    return found


def set_number(value: object) -> Damage:
    """Return a damage that puts a value in the place of the first row's number."""

    def damage(reply: Any) -> Any:
        first = entries(reply)[0]
        if isinstance(first, list):
            first[0]["score"] = value
        elif "probs" in first:
            first["probs"][0] = value
        elif "embedding" in first:
            first["embedding"][0] = value
        else:
            first["raw"] = value
        return reply

    return damage


def set_list(value: object) -> Damage:
    """Return a damage that puts a value in the place of the first row's list of numbers."""

    def damage(reply: Any) -> Any:
        first = entries(reply)[0]
        if isinstance(first, list):
            entries(reply)[0] = value
        else:
            first[
                "probs" if "probs" in first else "embedding" if "embedding" in first else "raw"
            ] = value
        return reply

    return damage


def change(step: Callable[[list[Any]], object]) -> Damage:
    """Return a damage of the list of entries."""

    def damage(reply: Any) -> Any:
        step(entries(reply))
        return reply

    return damage


DAMAGES: dict[str, Damage] = {
    "no JSON object or list": lambda reply: "fine",
    "null": lambda reply: None,
    "empty object": lambda reply: {},
    "empty list": lambda reply: [],
    "one entry fewer": change(lambda rows: rows.pop()),
    "one entry more": change(lambda rows: rows.append(rows[0])),
    "an entry that is null": change(lambda rows: rows.__setitem__(-1, None)),
    "an entry that is a number": change(lambda rows: rows.__setitem__(-1, 0.5)),
    "null for a number": set_number(None),
    "text for a number": set_number("0.5"),
    "true for a number": set_number(True),
    "a list for a number": set_number([0.5]),
    "no list of numbers": set_list({"0": 0.5}),
    "empty list of numbers": set_list([]),
    "null for the list": set_list(None),
}
