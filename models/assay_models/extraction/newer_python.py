"""Python that is newer than this server's interpreter, rewritten for its parser."""

import importlib
import re
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

from assay_models.extraction.grammars import nests_too_deep
from assay_models.extraction.languages import PYTHON_GRAMMAR

_NEWER = re.compile(
    r"\b(?:def|class)\s+\w+\s*\[|^[^\S\n]*+type\s+\w|\b(?:[ft]r?|r[ft])[\"']",
    re.IGNORECASE | re.MULTILINE,
)


class _Edit(NamedTuple):
    """New text in the place of the bytes from `start` to `end`."""

    start: int
    end: int
    text: bytes = b""


def in_older_syntax(code: str) -> str | None:
    """Return a program in the syntax of Python 3.11 with the structure of this newer one.

    Type parameters are removed, `type X = ...` becomes an assignment, and a string with
    replacement fields becomes a tuple of their expressions (PEP 695, 701, 750). All else stays as
    it is, so that the interpreter decides on it. The result computes something else.

    Returns:
        None if it holds no such syntax, or does not parse by the grammar of the newer Python.
    """
    if not _NEWER.search(code) or nests_too_deep(code):
        return None
    try:
        data = code.encode()
    except UnicodeEncodeError:
        return None
    root = _parser().parse(data).root_node
    if root.has_error:
        return None
    edits: list[_Edit] = []
    pending = [root]
    while pending:
        node = pending.pop()
        edits += _edits(node)
        pending += node.children
    return _edited(data, sorted(edits)).decode() if edits else None


def _edited(data: bytes, edits: Sequence[_Edit]) -> bytes:
    kept, place = list[bytes](), 0
    for start, end, text in edits:
        kept += [data[place:start], text]
        place = end
    return b"".join([*kept, data[place:]])


@cache
def _parser() -> Any:
    core = importlib.import_module("tree_sitter")
    grammar = importlib.import_module(PYTHON_GRAMMAR.replace("-", "_"))
    return core.Parser(core.Language(grammar.language()))


def _edits(node: Any) -> Iterator[_Edit]:
    """Yield the edits of one node, without those of its children."""
    if node.type in ("function_definition", "class_definition"):
        parameters = node.child_by_field_name("type_parameters")
        if parameters is not None:
            yield _removed(parameters)
    elif node.type == "type_alias_statement":
        yield _Edit(node.start_byte, node.children[1].start_byte)
    elif node.type == "string" and _has_fields(node):
        yield from _string_as_tuple(node)
    elif node.type == "concatenated_string" and any(map(_has_fields, node.named_children)):
        yield from _parts_as_tuple(node)


def _has_fields(node: Any) -> bool:
    return any(child.type == "interpolation" for child in node.named_children)


def _string_as_tuple(node: Any) -> Iterator[_Edit]:
    for child in node.children:
        if child.type == "string_start":
            yield _Edit(child.start_byte, child.end_byte, b"(''")
        elif child.type == "interpolation":
            yield from _field_as_element(child)
        elif child.type == "string_end":
            yield _Edit(child.start_byte, child.end_byte, b",)")
        else:
            yield _removed(child)


def _field_as_element(node: Any) -> Iterator[_Edit]:
    """Yield the edits of `{expression = !r:format}`, whose format may hold fields as well."""
    for child in node.children:
        if child.type == "format_specifier":
            fields = [part for part in child.children if part.type == "format_expression"]
            places = (child.start_byte, *(at for field in fields for at in _span(field)))
            for start, end in zip(places[::2], (*places[1::2], child.end_byte), strict=True):
                yield _Edit(start, end)
            for field in fields:
                yield from _field_as_element(field)
        elif child.type == "{":
            yield _Edit(child.start_byte, child.end_byte, b", (")
        elif child.type == "}":
            yield _Edit(child.start_byte, child.end_byte, b")")
        elif child.type in ("=", "type_conversion"):
            yield _removed(child)


def _parts_as_tuple(node: Any) -> Iterator[_Edit]:
    parts: Sequence[Any] = [child for child in node.children if child.type == "string"]
    yield _Edit(node.start_byte, node.start_byte, b"(")
    for before, _ in pairwise(parts):
        yield _Edit(before.end_byte, before.end_byte, b",")
    yield _Edit(node.end_byte, node.end_byte, b")")


def _span(node: Any) -> tuple[int, int]:
    return node.start_byte, node.end_byte


def _removed(node: Any) -> _Edit:
    return _Edit(*_span(node))
