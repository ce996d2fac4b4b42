"""Expansion of the macros that a C or C++ program defines itself.

A grammar does not read `rep(i, n) { ... }` as a loop. Expanded, the text is only parsed: conditions
are not evaluated, nothing is included, and the program itself is not changed.
"""

import re
from dataclasses import dataclass

MAX_CHARACTERS = 1 << 18
"""The length up to which a program is expanded."""
MAX_ROUNDS = 8
"""The depth of macros inside macros."""

_CONTINUED = re.compile(r"\\[ \t]*\n")
_DEFINITION = re.compile(
    r"^[ \t]*#[ \t]*define[ \t]+(\w+)(?:\(([^()\n]*)\))?[ \t]*(.*)$", re.MULTILINE
)
# Comments, strings and characters are one piece each, so that nothing inside them is expanded.
_TOKEN = re.compile(
    r"//[^\n]*|/\*.*?(?:\*/|\Z)|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|\w+|\s+|##|.", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class _Macro:
    """A macro: its parameters, None where it is no function, and the pieces of its body."""

    parameters: tuple[str, ...] | None
    body: tuple[str, ...]


def expand(code: str) -> str | None:
    """Return the program with its own macros expanded, without their definitions.

    Returns:
        None if it defines no macro, or grows beyond the limits.
    """
    joined = _CONTINUED.sub(" ", code)
    macros = {name: _macro(parameters, body) for name, parameters, body in _definitions(joined)}
    if not macros:
        return None
    text = _DEFINITION.sub("", joined)
    for _ in range(MAX_ROUNDS):
        if len(text) > MAX_CHARACTERS:
            return None
        expanded = _expand_once(_TOKEN.findall(text), macros)
        if expanded is None or expanded == text:
            return expanded
        text = expanded
    return text


def _definitions(code: str) -> list[tuple[str, str | None, str]]:
    return [(found[1], found[2], found[3]) for found in _DEFINITION.finditer(code)]


def _macro(parameters: str | None, body: str) -> _Macro:
    pieces = tuple(piece for piece in _TOKEN.findall(body) if not piece.startswith(("//", "/*")))
    if parameters is None:
        return _Macro(None, pieces)
    names = tuple(name.strip().replace("...", "__VA_ARGS__") for name in parameters.split(","))
    return _Macro(names if names != ("",) else (), pieces)


def _expand_once(pieces: list[str], macros: dict[str, _Macro]) -> str | None:
    parts: list[str] = []
    closing = _closing_brackets(pieces)
    place = length = 0
    while place < len(pieces):
        piece = pieces[place]
        place += 1
        macro = macros.get(piece)
        if macro is not None and macro.parameters is None:
            piece = "".join(macro.body)
        elif macro is not None and (call := _arguments(pieces, place, closing)) is not None:
            arguments, place = call
            piece = _substitute(macro, arguments)
        length += len(piece)
        if length > MAX_CHARACTERS:
            return None
        parts.append(piece)
    return "".join(parts)


def _closing_brackets(pieces: list[str]) -> dict[int, int]:
    """Return the place of the closing bracket of each opening one that is closed."""
    closing: dict[int, int] = {}
    opened: list[int] = []
    for place, piece in enumerate(pieces):
        if piece == "(":
            opened.append(place)
        elif piece == ")" and opened:
            closing[opened.pop()] = place
    return closing


def _arguments(
    pieces: list[str], place: int, closing: dict[int, int]
) -> tuple[list[str], int] | None:
    """Return the arguments of a call that begins at that place, and the place behind it."""
    while place < len(pieces) and pieces[place].isspace():
        place += 1
    end = closing.get(place)
    if end is None:
        return None
    arguments, depth = [""], 0
    for piece in pieces[place + 1 : end]:
        depth += {"(": 1, ")": -1}.get(piece, 0)
        if piece == "," and depth == 0:
            arguments.append("")
        else:
            arguments[-1] += piece
    return [argument.strip() for argument in arguments], end + 1


def _substitute(macro: _Macro, arguments: list[str]) -> str:
    names = macro.parameters or ()
    if names and names[-1].endswith("__VA_ARGS__"):
        fixed = len(names) - 1
        arguments = [*arguments[:fixed], ", ".join(arguments[fixed:])]
        names = (*names[:-1], "__VA_ARGS__")
    values = dict(zip(names, arguments, strict=False))
    return "".join("" if piece == "##" else values.get(piece, piece) for piece in macro.body)
