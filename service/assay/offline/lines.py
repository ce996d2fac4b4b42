"""The lines of an input file of items."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import orjson

from assay.types import ItemFailure


@dataclass(frozen=True, slots=True)
class InputLine:
    """A line of the input that is not blank. `number` counts all lines from 1."""

    number: int
    text: bytes

    @property
    def digest(self) -> str:
        """A digest of the text, which shows whether the line changed since it was scored."""
        return hashlib.blake2b(self.text, digest_size=8).hexdigest()


def read_lines(file: BinaryIO) -> Iterator[InputLine]:
    """Yield the lines of a file that are not blank."""
    for number, text in enumerate(file, start=1):
        stripped = text.removeprefix(b"\xef\xbb\xbf").strip() if number == 1 else text.strip()
        if stripped:
            yield InputLine(number, stripped)


def count_lines(file: BinaryIO) -> tuple[int, int]:
    """Return the number of lines with text, and the number of blank lines."""
    total = filled = 0
    for total, text in enumerate(file, start=1):  # noqa: B007 the last number is the count
        filled += bool(text.strip())
    return filled, total - filled


def parse_item(line: InputLine) -> dict[str, Any] | ItemFailure:
    """Return the item's fields, or the failure `invalid_line` if the line is no JSON object."""
    try:
        item = orjson.loads(line.text)
    except orjson.JSONDecodeError as error:
        return ItemFailure("invalid_line", f"not JSON: {error.msg} at column {error.colno}")
    if not isinstance(item, dict):
        return ItemFailure("invalid_line", "a line must hold a JSON object, the item's fields")
    return item
