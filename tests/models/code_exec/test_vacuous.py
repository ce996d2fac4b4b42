"""Tests that an empty program passes: each set of tests is tried with one until it has failed."""

import asyncio
import marshal

import pytest
from support.sandboxes import BOUNDS, skip_without_isolation

from assay_models.base import ItemError
from assay_models.families.code_exec.sandbox import Sandbox

PROGRAM = "def double(x):\n    return 2 * x"


def is_tried(request: bytes) -> bool:
    """Return whether a request to the runner has its tests tried with an empty program."""
    frame = b""
    while request:
        size = 8 + int(request[:8], 16)
        frame, request = request[8:size], request[size:]
    return bool(marshal.loads(frame)["vacuous"])


async def test_tests_are_tried_with_an_empty_program_until_it_has_failed_them_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await asyncio.to_thread(skip_without_isolation)
    tried, report = [], Sandbox._report

    async def report_noted(box: Sandbox, request: bytes) -> str:
        tried.append(is_tried(request))
        return await report(box, request)

    box = Sandbox(BOUNDS, is_isolated=True)
    monkeypatch.setattr(Sandbox, "_report", report_noted)
    for _ in range(2):
        (result,) = await box.run(PROGRAM, ["assert double(1) == 2"])
        assert result.outcome == "pass"
        with pytest.raises(ItemError, match="an empty program passes"):
            await box.run(PROGRAM, ["x = 1"])
    assert tried == [True, True, False, True]
