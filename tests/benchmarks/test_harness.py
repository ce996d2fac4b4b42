"""The parts of the benchmarks without servers: texts, requests, replies, figures and pages."""

import math
import random
from pathlib import Path
from typing import Any

import orjson
import pytest

from benchmarks.__main__ import parse
from benchmarks.connections import MalformedReply, parse_reply
from benchmarks.corpora import ScoredTexts, group_texts, stampede_texts
from benchmarks.load import LoadConfig, LoadGenerator, batches_of, percentile
from benchmarks.measure import read_counters
from benchmarks.phase import progress_line
from benchmarks.plot import draw_shares
from benchmarks.publish import BEGIN, END, TITLES, page, publish
from benchmarks.scenarios import QUICK, WORKLOADS, Scale, scenarios_of
from benchmarks.summary import cached_ratios, idle_overheads, stampede_cost, summarise_all
from benchmarks.texts import (
    GROUP_SIZE,
    MAX_TOKENS,
    MIN_TOKENS,
    Text,
    Words,
    draw_lengths,
    groups,
    long_tailed,
)
from benchmarks.wire import WIRES, BadReply

TEXTS = [Text("ask", f" answer{at}", 10 + at) for at in range(4)]


class WordTokenizer:
    """A tokenizer of a few words, one token each, with the special tokens of an encoder."""

    words = ("alpha", "beta", "gamma", "delta")

    def get_vocab(self) -> dict[str, int]:
        return {word: at for at, word in enumerate((*self.words, "##a", "B", "to"))}

    def __call__(self, text: list[str]) -> dict[str, Any]:
        return {"input_ids": [[0, *range(len(line.split())), 1] for line in text]}


def config(**changed: Any) -> LoadConfig:
    fields: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": 1,
        "wire": "predict",
        "model": "m",
        "new_connection": True,
        "concurrency": 1,
        "per_request": 2,
        "seconds": 1.0,
        "requests": None,
        "timeout": 1.0,
        "tolerance": 0.02,
        "texts": TEXTS,
        "expected": [0.0, 1.0, 2.0, 3.0],
    }
    return LoadConfig(**{**fields, **changed})


def test_drawn_lengths_are_long_tailed_within_the_limits() -> None:
    drawn = sorted(draw_lengths(2000, random.Random(1)))
    assert drawn[0] == MIN_TOKENS
    assert drawn[-1] == MAX_TOKENS
    assert 88 <= drawn[1000] <= 104


def test_texts_have_the_stated_number_of_tokens() -> None:
    words = Words("encoder", WordTokenizer())
    for text in long_tailed(words, 50, seed=2):
        assert len(text.prompt.split()) + len(text.response.split()) + 3 == text.tokens


def test_siblings_and_groups_share_only_their_prompt() -> None:
    words = Words("encoder", WordTokenizer())
    found = long_tailed(words, 6, seed=2, siblings=3)
    assert len({text.prompt for text in found}) == 2
    first, second = groups(words, 2, seed=3)[0], groups(words, 2, seed=3)[GROUP_SIZE]
    assert first.prompt != second.prompt
    assert len({text.response for text in groups(words, 1, seed=3)}) == GROUP_SIZE


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_an_incomplete_reply_is_none_and_a_complete_one_is_read(size: int) -> None:
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
    for cut in range(0, len(whole), size):
        assert parse_reply(whole[:cut]) is None
    assert parse_reply(whole) == (200, b"hello")


def test_a_chunked_reply_is_joined() -> None:
    head = b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert parse_reply(head + b"3\r\nabc\r\n2\r\nde\r\n") is None
    assert parse_reply(head + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n") == (503, b"abcde")


def test_a_reply_without_a_length_is_refused() -> None:
    with pytest.raises(MalformedReply):
        parse_reply(b"HTTP/1.1 200 OK\r\n\r\nendless")


@pytest.mark.parametrize("name", WIRES)
def test_every_request_is_complete_http_and_contains_the_texts(name: str) -> None:
    request = WIRES[name].request("m", TEXTS[:2], "127.0.0.1", 80)
    head, _, body = request.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    assert all(text.response in orjson.dumps(orjson.loads(body)).decode() for text in TEXTS[:2])


def test_scores_of_a_reply_are_sorted_by_index() -> None:
    rows = [{"index": 1, "relevance_score": 2.0}, {"index": 0, "relevance_score": 1.0}]
    assert WIRES["infinity"].read(orjson.dumps({"results": rows}), 2) == [1.0, 2.0]


def test_a_reply_with_a_missing_score_is_refused() -> None:
    rows = [{"index": 0, "status": "error", "score": None}]
    with pytest.raises(BadReply):
        WIRES["assay"].read(orjson.dumps({"results": rows}), 1)
    with pytest.raises(BadReply):
        WIRES["predict"].read(b'{"scores": [1.0]}', 2)


def test_a_load_config_is_read_back_from_its_json() -> None:
    assert LoadConfig.load(config().dump()) == config()


def test_a_report_counts_right_items_and_every_error() -> None:
    generator = LoadGenerator(config())
    generator.recording.answers = [
        (0, 200, b'{"scores": [0.001, 1.0]}'),
        (1, 200, b'{"scores": [2.0, 9.0]}'),
        (0, 429, b""),
        (1, 200, b"{}"),
    ]
    generator.recording.latencies = [0.1, 0.2, 0.3, 0.4]
    generator.recording.seconds = 2.0
    report = generator.report()
    assert report["items"] == 3
    assert report["errors"] == {"wrong score": 1, "status 429": 2, "KeyError in the reply": 2}
    assert report["largest_difference"] == 6.0
    assert report["items_per_second"] == 1.5


def test_percentiles_are_by_nearest_rank() -> None:
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([1.0, 2.0], 0.99) == 2.0
    assert math.isnan(percentile([], 0.5))


def test_an_incomplete_last_batch_is_dropped() -> None:
    assert [len(batch) for batch in batches_of(TEXTS, 3)] == [3]


def test_counters_are_summed_over_all_labels_but_the_outcome() -> None:
    text = (
        'assay_items_total{model="a",outcome="computed"} 3.0\n'
        'assay_items_total{model="b",outcome="computed"} 2.0\n'
        'assay_tokens_total{model="a"} 7.0\n'
        'assay_batch_size_bucket{le="1"} 9.0\n'
    )
    assert read_counters(text) == {"items.computed": 5.0, "tokens": 7.0}


def test_a_stampede_has_each_item_ten_times_and_other_items_each_repeat() -> None:
    texts = [Text("p", str(at), 5) for at in range(128)]
    scored = ScoredTexts(texts, [float(at) for at in range(128)])
    first, second = stampede_texts(scored, 0), stampede_texts(scored, 1)
    assert len(first.texts) == 640
    assert not set(first.texts) & set(second.texts)
    assert all(int(text.response) == score for text, score in zip(*_columns(first), strict=True))


def test_no_two_measurements_have_the_same_groups() -> None:
    scale = Scale(groups=2, long_repeats=2)
    texts = [Text("p", str(at), 5) for at in range(64)]
    scored = ScoredTexts(texts, [0.0] * 64)
    parts = [
        group_texts(scored, scenario, repeat, scale) for repeat in range(2) for scenario in range(2)
    ]
    assert [len(part.texts) for part in parts] == [16] * 4
    assert len({text for part in parts for text in part.texts}) == 64


def _columns(scored: ScoredTexts) -> tuple[list[Text], list[float]]:
    return scored.texts, scored.expected


def test_scenarios_have_unique_names() -> None:
    for scale in (Scale(), QUICK):
        names = [scenario.name for scenario in scenarios_of(tuple(WORKLOADS), scale)]
        assert len(names) == len(set(names))


def results() -> dict[str, Any]:
    def measured(rate: float, **more: Any) -> dict[str, Any]:
        return {"items_per_second": rate, "p50_ms": 5.0, "errors": {}, **more}

    shapes = [
        {"name": name, "phase": phase}
        for name, phase in (("fresh-16", "encoder"), ("idle", "encoder"), ("stampede", "cache"))
    ]
    passes = [{"items_per_second": 10.0, "tokens_per_second": 100.0}]
    return {
        "shapes": [*shapes, {"name": "cached-fresh", "phase": "cache"}],
        "cells": {
            "fresh-16": {
                "assay": [measured(8.0), measured(9.0), measured(1.0, errors={"status 500": 2})]
            },
            "idle": {"assay": [measured(3.0)]},
            "cached-fresh": {"assay": [measured(50.0)], "bare": [measured(100.0)]},
            "stampede": {"assay": [measured(5.0, computed=64.0)]},
        },
        "limits": {
            "encoder.transformers": {
                "bound": 8,
                "repeats": passes,
                "single": [{"p50_ms": 4.0}],
            }
        },
        "failures": {"vllm.encoder": "it ended: <no> room"},
        "versions": {"assay": {"torch": "2"}, "infinity": {}},
        "settings": {
            "scale": {"seconds": 1.0, "repeats": 3, "long_repeats": 1},
            "dtype": "float32",
            "systems": {"assay": "defaults"},
        },
        "machine": {"cpu": "c", "cores": 2, "memory_gib": 1, "system": "s", "python": "3"},
        "began": "now",
        "minutes": 1.0,
    }


def test_summaries_are_medians_and_shares_of_the_limit() -> None:
    first = summarise_all(results())[0]
    assert first.values["items_per_second"] == 8.0
    assert first.share == 0.8
    assert first.own_share is None
    assert first.errors == {"status 500": 2}


def test_the_figures_of_the_cache_the_idle_server_and_the_stampede() -> None:
    assert cached_ratios(results()) == {"cached-fresh": 0.5}
    assert idle_overheads(results()) == {"assay": {"p50": 5.0, "transformers": 1.0}}
    assert stampede_cost(results()) == 1.0


def test_the_page_has_shares_errors_and_failures() -> None:
    text = page(results())
    assert "8.0 (0.80) (!)" in text
    assert "2 x status 500" in text
    assert "no> room" in text
    assert "was computed 1.00 times" in text


def test_publishing_replaces_only_the_text_between_the_markers(tmp_path: Path) -> None:
    (tmp_path / "benchmarks.md").write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    publish(results(), tmp_path)
    text = (tmp_path / "benchmarks.md").read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert orjson.loads((tmp_path / "benchmarks" / "results.json").read_bytes()) == results()


def test_the_plot_has_a_bar_for_each_share_of_the_limit() -> None:
    drawn = draw_shares(summarise_all(results()), TITLES)
    assert drawn.startswith("<svg")
    assert ">0.80<" in drawn


def test_an_unknown_system_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--systems", "assay,unknown-system"])
    assert "unknown-system" in capsys.readouterr().err


def test_a_measurement_without_answers_has_a_progress_line() -> None:
    found = {"items_per_second": 0.0, "p50_ms": None, "p99_ms": None, "errors": {"late": 1024}}
    assert progress_line(found).split() == [
        "0.0",
        "items/s",
        "p50",
        "-",
        "p99",
        "-",
        "errors",
        "1024",
    ]
    assert progress_line({"failed": "OSError: gone"}) == "OSError: gone"
