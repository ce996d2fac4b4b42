"""The load and the report of the memory benchmark."""

import asyncio
import json
import random
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest

from assay_models.registry import FAMILIES
from benchmarks.memory import HEADER, MIB, Counts, Minute, MixedLoad, counts_of, ratio_line, row_of
from benchmarks.mixed_items import (
    GROUP_SIZES,
    ITEMS_OF_FAMILY,
    MIN_TOKENS,
    Target,
    draw_length,
    request_body,
    text_items,
)

LIMIT = 512
TARGETS = [Target(family, family, LIMIT) for family in ITEMS_OF_FAMILY]


def bodies(seed: int, count: int) -> list[dict[str, Any]]:
    draw = random.Random(seed)
    return [json.loads(request_body(draw, TARGETS)) for _ in range(count)]


def test_lengths_cover_the_range_to_the_limit() -> None:
    draw = random.Random(1)
    lengths = [draw_length(draw, LIMIT) for _ in range(2000)]
    assert min(lengths) == MIN_TOKENS
    assert max(lengths) > LIMIT * 0.95
    assert all(MIN_TOKENS <= length <= LIMIT for length in lengths)
    assert sum(length < 101 for length in lengths) == pytest.approx(1000, rel=0.1)


def test_requests_go_to_every_model_in_every_group_size() -> None:
    drawn = {(body["model"], len(body["items"])) for body in bodies(1, 400)}
    assert drawn == {(target.model, size) for target in TARGETS for size in GROUP_SIZES}


def test_requests_never_repeat_an_item() -> None:
    items = [json.dumps(item) for body in bodies(1, 100) for item in body["items"]]
    assert len(set(items)) == len(items)


def test_requests_of_one_seed_are_equal() -> None:
    assert bodies(7, 20) == bodies(7, 20)
    assert bodies(7, 20) != bodies(8, 20)


@pytest.mark.parametrize("family", ITEMS_OF_FAMILY)
def test_items_are_what_the_family_takes(family: str) -> None:
    draw = random.Random(3)
    item_type = FAMILIES[family].item
    for size in GROUP_SIZES:
        for item in ITEMS_OF_FAMILY[family](draw, LIMIT, size):
            item_type.model_validate(item)


def test_items_of_another_family_are_prompts_with_responses() -> None:
    (item,) = text_items(random.Random(1), LIMIT, 1)
    assert set(item) == {"prompt", "response"}


def test_counts_of_a_reply_with_scores() -> None:
    body = json.dumps({"usage": {"items": 8, "failed": 1, "tokens": 300}}).encode()
    assert counts_of(200, body) == Counts(items=7, tokens=300, failed=1)


def test_counts_of_a_refusal_are_one_failure() -> None:
    assert counts_of(503, b"{}") == Counts(failed=1)


def test_report_a_row_has_the_columns_of_its_header() -> None:
    row = row_of(Minute(3, 2048 * MIB, 2000 * MIB, 2100 * MIB, Counts(600, 60_000, 2)))
    assert row.split() == ["3", "2048", "2000", "2100", "10.0", "1000", "2"]
    assert HEADER.replace(" MiB", "").split() == [
        "minute",
        "resident",
        "median",
        "peak",
        "items/s",
        "tokens/s",
        "failed",
    ]


def test_report_ends_with_the_ratio_of_the_last_minute_to_the_first() -> None:
    sizes = ((2000, 1000), (9, 9), (2100, 1200))
    minutes = [Minute(1, end * MIB, median * MIB, 0, Counts()) for end, median in sizes]
    assert ratio_line(minutes).endswith("first minute: 1.050, of the medians 1.200")


class _Unserved(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), _Unserved) as server:
        Thread(target=server.serve_forever).start()
        yield server.server_port
        server.shutdown()


def test_targets_of_a_model_that_is_not_served_are_refused_by_name(port: int) -> None:
    with pytest.raises(RuntimeError, match="code: status 404"):
        asyncio.run(MixedLoad("127.0.0.1", port, ["code"]).targets())
