"""The page on batching states the constants of the code."""

import pytest
from support.paths import DOCS

from assay.batching import batcher, executor, scheduler
from assay.selection import CPU_BATCH_TOKENS
from assay.served_model import FRESH_SECONDS

PAGE = " ".join((DOCS / "explanation" / "batching.md").read_text(encoding="utf-8").split())


@pytest.mark.parametrize(
    "statement",
    [
        f"virtual start = arrival + {scheduler.AGEING_FACTOR:g} · tokens / speed",
        f"| `training` | 1/{1 / scheduler.MIN_SHARE['training']:g} of what",
        f"| `bulk` | 1/{1 / scheduler.MIN_SHARE['bulk']:g} of what",
        f"| {scheduler.RESERVED['training'] - 1}/{scheduler.RESERVED['training']} |",
        f"| {scheduler.RESERVED['bulk'] - 1}/{scheduler.RESERVED['bulk']} |",
        f"first {scheduler.WINDOW:,} of its lane",
        f"true tokens / {1 / scheduler.MAX_PADDING_SHARE:g}",
        f"budget / {1 / scheduler.FREE_PADDING_SHARE:g}",
        f"after {executor.FULL_BATCHES_TO_GROW} full batches",
        f"up to {executor.MAX_BATCHES_TO_GROW:,}",
        f"Up to {executor.MAX_AWAITED} of its batches",
        f"more than {batcher.HANG_SECONDS:g} seconds has hung",
        f"at most {CPU_BATCH_TOKENS:,}",
    ],
)
def test_the_page_states_a_constant(statement: str) -> None:
    assert statement in PAGE


def test_the_page_states_when_readiness_is_fresh() -> None:
    assert FRESH_SECONDS == 10
    assert "in the last ten seconds" in PAGE
