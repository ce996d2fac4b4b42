"""Bounds on the values of a large JSON body, counted before it is parsed.

The parser holds the interpreter's lock for the whole body: 14 to 60 ns a value, 80 to 350 ns a
field, and up to 200 bytes an object. So a body of many small values costs more than its bytes do.
"""

import asyncio
from collections.abc import Iterator

from assay.errors import RequestTooLarge

LARGE_BYTES = 2**18
"""A body up to this size cannot have more values than parse within some 10 ms."""

MAX_VALUES, MAX_NAMES = 2**20, 2**18
"""Bounds of a body: its values; and its objects, arrays and names of fields, which cost more."""

MAX_BRACKETS = 2**20
"""A bound on the brackets of a body, texts included: a text may be JSON that a template reads."""


async def check_parts(content: bytes) -> None:
    """Count the values of a JSON body in slices, between which the event loop runs other tasks.

    Args:
        content: the body. It may be malformed, which its parser reports.

    Raises:
        RequestTooLarge: it has more than the bounds of this module.
    """
    values = names = brackets = 0
    for part, outside in _slices(content):
        opened = outside.count(b"[") + outside.count(b"{")
        values += outside.count(b",") + opened
        names += outside.count(b":") + opened
        brackets += part.count(b"[") + part.count(b"{")
        _check("values", values, MAX_VALUES)
        _check("objects, arrays and names of fields", names, MAX_NAMES)
        _check("brackets", brackets, MAX_BRACKETS)
        await asyncio.sleep(0)


def _slices(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the parts of a JSON text, and of each part that which is outside of strings."""
    is_inside = is_escaped = False
    for start in range(0, len(content), LARGE_BYTES):
        part = content[start + is_escaped : start + LARGE_BYTES]
        is_escaped = (len(part) - len(part.rstrip(b"\\"))) % 2 == 1
        quoted = part.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
        yield part, b"".join(quoted[is_inside::2])
        is_inside ^= len(quoted) % 2 == 0


def _check(what: str, count: int, limit: int) -> None:
    if count > limit:
        raise RequestTooLarge(
            f"the body has more than {limit} {what}",
            hint="split the request, or leave out fields that the server does not read",
        )
