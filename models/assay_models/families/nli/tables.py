"""Tables of a text in Markdown, a row at a time."""

import re
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import NamedTuple

from assay_models.families.nli.sentences import Span, lines

_RULE = re.compile(r"\|?(?:\s*+:?-++:?\s*+\|)++(?:\s*+:?-++:?)?")
# The headers that a table's sentences repeat are at most this many times as long as the table.
MAX_GROWTH = 32
_BAR = re.compile(r"(?<!\\)\|")


class TableRow(NamedTuple):
    """A row of a table, its place in characters, and its content as a sentence.

    The sentence is `Name: header value, header value.` A model that reads a table as it is written
    connects every value with every row. In a table whose headers are far longer than its rows
    it is the row as it is written.
    """

    start: int
    end: int
    sentence: str


class Table(NamedTuple):
    """A table with its header, and its place in characters."""

    start: int
    end: int
    rows: Sequence[TableRow]


def tables(text: str) -> Iterator[Table]:
    """Yield each table of a text: a line of headers, a rule below it, and rows."""
    if "|" not in text:
        return
    spans = list(lines(text))
    index = 1
    while index < len(spans):
        header = text[slice(*spans[index - 1])]
        if "|" not in header or not _RULE.fullmatch(text[slice(*spans[index])].strip()):
            index += 1
            continue
        last = index
        while last + 1 < len(spans) and "|" in text[slice(*spans[last + 1])]:
            last += 1
        rows = list(_rows(text, header, spans[index + 1 : last + 1]))
        yield Table(spans[index - 1][0], spans[last][1], rows)
        index = last + 2


def _rows(text: str, header: str, spans: Sequence[Span]) -> Iterator[TableRow]:
    headers = _cells(header)
    length = len(header) + sum(end - start for start, end in spans)
    repeats_headers = len(header) * len(spans) <= MAX_GROWTH * length
    for start, end in spans:
        written = text[start:end].strip()
        cells = _cells(written)
        if any(cells):
            yield TableRow(start, end, _sentence(headers, cells) if repeats_headers else written)


def _cells(line: str) -> list[str]:
    line = line.strip().removeprefix("|")
    return [cell.strip() for cell in _BAR.split(line.removesuffix("|"))]


def _sentence(headers: Sequence[str], cells: Sequence[str]) -> str:
    named = [
        f"{header} {cell}".strip()
        for header, cell in zip_longest(headers[1:], cells[1:], fillvalue="")
        if cell
    ]
    parts = [part for part in (cells[0], ", ".join(named)) if part]
    return f"{': '.join(parts)}."
