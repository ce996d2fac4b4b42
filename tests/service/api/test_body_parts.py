"""The count of a body's values before it is parsed: exact outside of strings, in any slices."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.api import body_parts
from assay.api.body_parts import COSTS, MAX_BRACKETS, MAX_COST, QUOTE_COST, check_parts
from assay.errors import RequestTooLarge

TEXTS = st.text(st.sampled_from('ab\\"[]{},:é🦜\n'), max_size=40)
VALUES = st.recursive(
    st.none() | st.integers(0, 9) | st.sampled_from([0.5, 2.25]) | TEXTS,
    lambda parts: st.lists(parts, max_size=5) | st.dictionaries(TEXTS, parts, max_size=5),
    max_leaves=30,
)


def cost_of(value: Any) -> int:
    """Return the cost of a value as the bound counts it, found by visiting it."""
    if isinstance(value, str):
        return 2 * QUOTE_COST
    if isinstance(value, float):
        return COSTS[b"."]
    if not isinstance(value, list | dict):
        return 0
    commas = max(0, len(value) - 1) * COSTS[b","]
    if isinstance(value, list):
        return COSTS[b"["] + commas + sum(map(cost_of, value))
    names = len(value) * (COSTS[b":"] + 2 * QUOTE_COST)
    return COSTS[b"{"] + commas + names + sum(map(cost_of, value.values()))


@given(value=VALUES, size=st.integers(1, 60), is_ascii=st.booleans())
def test_values_are_counted_exactly_outside_of_strings(
    value: Any, size: int, is_ascii: bool
) -> None:
    content, cost = json.dumps(value, ensure_ascii=is_ascii).encode(), cost_of(value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(body_parts, "LARGE_BYTES", size)
        patch.setattr(body_parts, "MAX_COST", cost)
        asyncio.run(check_parts(content))
        patch.setattr(body_parts, "MAX_COST", cost - 1)
        with pytest.raises(RequestTooLarge):
            asyncio.run(check_parts(content))


@pytest.mark.parametrize(
    "content",
    [
        b"[" + b"0," * MAX_COST + b"0]",
        b"[" + b"0.5," * (MAX_COST // 4) + b"0]",
        b"[" + b'"",' * (MAX_COST // 5) + b'""]',
        b"[" + b"[]," * (MAX_COST // 5) + b"0]",
        b"{" + b'"a":0,' * (MAX_COST // 9) + b'"b":0}',
        b'["' + b"[]" * MAX_BRACKETS + b'"]',
    ],
    ids=["integers", "decimals", "texts", "arrays", "names", "JSON in a text"],
)
async def test_too_many_values_are_refused(content: bytes) -> None:
    with pytest.raises(RequestTooLarge) as raised:
        await check_parts(content)
    assert raised.value.hint == (
        "split the request, or leave out fields that the server does not read"
    )


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(['Say, \\ "it": [well], {so}\n' * 20_000]).encode(),
        json.dumps([0.12345678] * 700_000).encode(),
        b'"' + b"\\" * 2**20 + b'"',
        b'"' * 2**20,
    ],
    ids=["text", "numbers", "backslashes", "malformed"],
)
async def test_a_large_body_of_few_values_passes(content: bytes) -> None:
    await check_parts(content)


async def test_other_tasks_run_between_slices() -> None:
    rounds = 0

    async def count() -> None:
        nonlocal rounds
        while True:
            rounds += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(count())
    await check_parts(b'["' + b"a" * (8 * body_parts.LARGE_BYTES) + b'"]')
    other.cancel()
    assert rounds >= 8
