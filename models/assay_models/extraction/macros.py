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
# Comments, strings and characters are one token each, so that nothing inside them is expanded.
_TOKEN = re.compile(
    r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|\w+|\s+|##|.", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class _Macro:
    """A macro: its parameters, None where it is no function, and the tokens of its body."""

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
    tokens = tuple(token for token in _TOKEN.findall(body) if not token.startswith(("//", "/*")))
    if parameters is None:
        return _Macro(None, tokens)
    names = tuple(name.strip().replace("...", "__VA_ARGS__") for name in parameters.split(","))
    return _Macro(names if names != ("",) else (), tokens)


def _expand_once(tokens: list[str], macros: dict[str, _Macro]) -> str | None:
    parts: list[str] = []
    place = length = 0
    while place < len(tokens):
        token = tokens[place]
        place += 1
        macro = macros.get(token)
        if macro is not None and macro.parameters is None:
            token = "".join(macro.body)
        elif macro is not None and (call := _arguments(tokens, place)) is not None:
            arguments, place = call
            token = _substitute(macro, arguments)
        length += len(token)
        if length > MAX_CHARACTERS:
            return None
        parts.append(token)
    return "".join(parts)


def _arguments(tokens: list[str], place: int) -> tuple[list[str], int] | None:
    """Return the arguments of a call that begins at that place, and the place behind it."""
    while place < len(tokens) and tokens[place].isspace():
        place += 1
    if place == len(tokens) or tokens[place] != "(":
        return None
    arguments, depth = [""], 0
    for end in range(place + 1, len(tokens)):
        token = tokens[end]
        if token == ")" and depth == 0:
            return [argument.strip() for argument in arguments], end + 1
        depth += {"(": 1, ")": -1}.get(token, 0)
        if token == "," and depth == 0:
            arguments.append("")
        else:
            arguments[-1] += token
    return None


def _substitute(macro: _Macro, arguments: list[str]) -> str:
    names = macro.parameters or ()
    if names and names[-1].endswith("__VA_ARGS__"):
        fixed = len(names) - 1
        arguments = [*arguments[:fixed], ", ".join(arguments[fixed:])]
        names = (*names[:-1], "__VA_ARGS__")
    values = dict(zip(names, arguments, strict=False))
    return "".join("" if token == "##" else values.get(token, token) for token in macro.body)
