"""A bound on the values of a large JSON body, counted before it is parsed.

The parser holds the interpreter's lock for the whole body, so that no other request is served. It
takes 1 to 3 ms for a MiB of text; small values take longer than their bytes do, and more memory.
"""

import asyncio
from collections.abc import Iterator

from assay.errors import RequestTooLarge

LARGE_BYTES = 2**18
"""A body up to this size is parsed within some 10 ms, whatever it holds."""

MAX_COST = 3_000_000
QUOTE_COST = 2
COSTS = {b",": 1, b".": 3, b":": 4, b"[": 4, b"{": 4}
"""The costs of values by the characters that each has, in about 15 ns of parsing: an integer costs
1, a decimal 4, a text 5, an array or an object 4, the name of a field 9."""

MAX_BRACKETS = 2**20
"""A bound on the brackets of a body, texts included: a text may be JSON that a template reads."""


async def check_parts(content: bytes) -> None:
    """Count the values of a JSON body in slices, between which the event loop runs other tasks.

    Args:
        content: the body. It may be malformed, which its parser reports.

    Raises:
        RequestTooLarge: they cost more than `MAX_COST`, or there are more than `MAX_BRACKETS`.
    """
    cost = brackets = 0
    for part, outside, quotes in _slices(content):
        cost += quotes * QUOTE_COST
        cost += sum([outside.count(character) * each for character, each in COSTS.items()])
        brackets += part.count(b"[") + part.count(b"{")
        if cost > MAX_COST or brackets > MAX_BRACKETS:
            raise RequestTooLarge(
                "the body has too many values for its size: numbers, texts, objects, arrays",
                hint="split the request, or leave out fields that the server does not read",
            )
        await asyncio.sleep(0)


def _slices(content: bytes) -> Iterator[tuple[bytes, bytes, int]]:
    """Yield the parts of a JSON text, what of each is outside of strings, and its quotes."""
    is_inside = is_escaped = False
    for start in range(0, len(content), LARGE_BYTES):
        part = content[start + is_escaped : start + LARGE_BYTES]
        is_escaped = (len(part) - len(part.rstrip(b"\\"))) % 2 == 1
        quoted = part.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
        yield part, b"".join(quoted[is_inside::2]), len(quoted) - 1
        is_inside ^= len(quoted) % 2 == 0
