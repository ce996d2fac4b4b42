"""`assay score` on files, with the torch-free model in this process."""

import io
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from support.item_files import distinct_items, results_of, run, score, write_items
from typer.testing import CliRunner

from assay.cli import app
from assay.offline.lines import InputLine, read_lines
from assay.offline.progress import duration, shown_progress
from assay.offline.records import LineCounts, OutputState, encode_record
from assay.offline.score_file import Concurrency, score_lines
from assay.offline.scorer import Halted, Identity, ItemOutcome
from assay.types import ItemResult
from assay_models.families.reference import ReferenceModel

SCORED = {"prompt": "add one and two", "response": "one and two"}


class TestOutcomes:
    def test_each_line_has_a_result_in_order(self, tmp_path: Path) -> None:
        source = tmp_path / "items.jsonl"
        source.write_bytes(
            b'\xef\xbb\xbf{"id": "a", "prompt": "add one and two", "response": "one and two"}\r\n'
            b"\n"
            b'{"prompt": "broken\n'
            b"[1, 2]\n"
            b'{"id": "b", "prompt": "p", "response": "r", "typo": 1}\n'
            b"   \n"
            b'{"id": "d", "prompt": "only a prompt"}\n'
            b'{"id": "e", "group": "g", "prompt": "w", "response": "' + b"w " * 5000 + b'"}\n'
            b"\xff\xfe\n"
            b'{"id": "z", "text": "no newline after this"}'
        )
        output = tmp_path / "scores.jsonl"
        result = score(source, output)
        assert result.exit_code == 1
        lines = [
            (row["line"], row["id"], row["error"] and row["error"]["code"])
            for row in results_of(output)
        ]
        assert lines == [
            (1, "a", None),
            (3, None, "invalid_line"),
            (4, None, "invalid_line"),
            (5, "b", "invalid_item"),
            (7, "d", "invalid_item"),
            (8, "e", "input_too_long"),
            (9, None, "invalid_line"),
            (10, "z", None),
        ]
        assert "8 of 8 lines: 2 scored, 6 failed" in result.stderr
        assert "input_too_long 1, invalid_item 2, invalid_line 3" in result.stderr
        assert "blank lines passed over: 2" in result.stderr

    def test_a_record_has_the_results_fields_model_and_fingerprint(self, tmp_path: Path) -> None:
        source = write_items(tmp_path / "items.jsonl", [{"id": "a", "group": "g", **SCORED}])
        output = tmp_path / "scores.jsonl"
        assert score(source, output).exit_code == 0
        (row,) = results_of(output)
        assert row["score"] == row["raw"] == row["channels"]["reward"] == pytest.approx(0.693147)
        assert (row["status"], row["tokens"], row["source"]) == ("ok", 7, "computed")
        assert (row["id"], row["group"], row["flags"], row["details"]) == ("a", "g", [], {})
        assert row["model"] == "reference@1"
        assert row["fingerprint"].startswith("sha256:")

    def test_results_go_beside_the_input_unless_an_output_is_named(self, tmp_path: Path) -> None:
        source = write_items(tmp_path / "items.v2.jsonl", [SCORED])
        result = run("score", str(source), "--model", "reference")
        output = tmp_path / "items.v2.scores.jsonl"
        assert result.stderr.startswith(f"results: {output}\n1 of 1 lines: 1 scored")
        assert (result.stdout, len(results_of(output))) == ("", 1)

    def test_results_of_a_stream_go_to_stdout_unless_an_output_is_named(
        self, tmp_path: Path
    ) -> None:
        fifo = tmp_path / "items"
        os.mkfifo(fifo)
        writer = threading.Thread(target=fifo.write_bytes, args=(orjson.dumps(SCORED),))
        writer.start()
        result = run("score", str(fifo), "--model", "reference")
        writer.join()
        assert orjson.loads(result.stdout)["status"] == "ok"

    def test_a_failed_line_has_no_score(self, tmp_path: Path) -> None:
        source = tmp_path / "items.jsonl"
        source.write_text('nothing\n{"prompt": "p"}\n{"typo": 1}\n')
        output = tmp_path / "scores.jsonl"
        assert score(source, output).exit_code == 1
        for row in results_of(output):
            assert row["status"] == "error"
            assert row["score"] is row["raw"] is None
            assert row["channels"] == {}

    def test_the_batch_size_does_not_change_the_results(self, tmp_path: Path) -> None:
        items: list[dict[str, Any]] = list(distinct_items(70))
        for index in (0, 5, 6, 7, 33, 69):
            items[index]["unknown"] = items[index]["other"] = 1
        source = write_items(tmp_path / "items.jsonl", items)
        outputs = []
        for size, in_flight in ((1, 1), (3, 7), (64, 2), (1024, 4)):
            output = tmp_path / f"{size}.jsonl"
            options = ("--batch-size", str(size), "--concurrency", str(in_flight))
            assert score(source, output, *options).exit_code == 1
            outputs.append(output.read_bytes())
        assert len(set(outputs)) == 1

    def test_more_invalid_items_than_an_error_lists_are_all_reported(self, tmp_path: Path) -> None:
        items = [{"id": f"{n}", "text": f"t {n}", f"unknown-{n}": n} for n in range(60)]
        source = write_items(tmp_path / "items.jsonl", [*items, SCORED])
        output = tmp_path / "scores.jsonl"
        assert score(source, output).exit_code == 1
        results = results_of(output)
        details = [row["error"]["detail"] for row in results[:-1]]
        assert details == [f"unknown-{n}: Extra inputs are not permitted" for n in range(60)]
        assert results[-1]["status"] == "ok"

    def test_a_batch_over_the_limit_is_scored_in_parts(self, tmp_path: Path) -> None:
        long = {"id": "long", "prompt": "w", "response": "w " * 80}
        source = write_items(tmp_path / "items.jsonl", [*distinct_items(30), long])
        output = tmp_path / "scores.jsonl"
        result = score(source, output, ASSAY_MAX_REQUEST_TOKENS="50")
        assert result.exit_code == 1
        results = results_of(output)
        assert [row["status"] for row in results] == ["ok"] * 30 + ["error"]
        assert results[-1]["error"]["code"] == "request_too_large"

    def test_scoring_waits_while_the_queue_is_full(self, tmp_path: Path) -> None:
        source = write_items(tmp_path / "items.jsonl", distinct_items(200))
        output = tmp_path / "scores.jsonl"
        options = ("--batch-size", "10", "--concurrency", "20")
        assert score(source, output, *options, ASSAY_MAX_QUEUE_TOKENS="100").exit_code == 0
        assert len(results_of(output)) == 200

    def test_truncation_is_applied(self, tmp_path: Path) -> None:
        source = write_items(tmp_path / "items.jsonl", [{"prompt": "w", "response": "w " * 5000}])
        output = tmp_path / "scores.jsonl"
        assert score(source, output, "--truncation", "left").exit_code == 0
        (row,) = results_of(output)
        assert (row["flags"], row["details"]) == (["truncated"], {"truncated_tokens": 905})

    def test_an_empty_file_gives_an_empty_output(self, tmp_path: Path) -> None:
        source = write_items(tmp_path / "items.jsonl", [])
        output = tmp_path / "scores.jsonl"
        assert score(source, output).exit_code == 0
        assert output.read_bytes() == b""


class TestStreams:
    def test_items_are_scored_from_stdin_to_stdout(self, tmp_path: Path) -> None:
        source = write_items(tmp_path / "items.jsonl", distinct_items(5))
        output = tmp_path / "scores.jsonl"
        score(source, output)
        arguments = ["score", "-", "--model", "reference", "-o", "-"]
        result = CliRunner().invoke(app, arguments, input=source.read_bytes())
        assert result.exit_code == 0
        assert result.stdout_bytes == output.read_bytes()


class TestUsage:
    def test_the_input_as_output_is_a_usage_error(self, tmp_path: Path) -> None:
        source = write_items(tmp_path / "items.jsonl", [SCORED])
        before = source.read_bytes()
        assert score(source, source, "--restart").exit_code == 2
        assert source.read_bytes() == before

    def test_a_missing_input_is_a_usage_error(self, tmp_path: Path) -> None:
        result = score(tmp_path / "absent", tmp_path / "scores.jsonl")
        assert result.exit_code == 2
        assert "cannot read" in result.stderr
        assert not (tmp_path / "scores.jsonl").exists()

    def test_an_output_in_a_missing_folder_is_a_usage_error(self, tmp_path: Path) -> None:
        source = write_items(tmp_path / "items.jsonl", [SCORED])
        result = score(source, tmp_path / "absent" / "scores.jsonl")
        assert result.exit_code == 2
        assert "cannot write" in result.stderr

    def test_an_unknown_model_is_a_usage_error(self, tmp_path: Path) -> None:
        source = write_items(tmp_path / "items.jsonl", [SCORED])
        arguments = ["score", str(source), "--model", "unknown", "-o", str(tmp_path / "out")]
        result = run(*arguments)
        assert result.exit_code == 2
        assert "reference@1" in result.stderr

    def test_the_clients_variables_are_ignored(self, tmp_path: Path) -> None:
        source = write_items(tmp_path / "items.jsonl", [SCORED])
        client = {"ASSAY_URL": "http://127.0.0.1:1", "ASSAY_API_KEY": "k"}
        assert score(source, tmp_path / "out", **client).exit_code == 0

    def test_a_model_that_does_not_load_stops_the_command(self, tmp_path: Path) -> None:
        folder = tmp_path / "cards" / "broken" / "1"
        folder.mkdir(parents=True)
        (folder / "card.toml").write_text(
            'name = "broken"\nversion = 1\nfamily = "reference"\n'
            '[example]\nitem = { prompt = "a", response = "b" }\nscore = 5.0\n'
        )
        source = write_items(tmp_path / "items.jsonl", [SCORED])
        output = tmp_path / "out"
        arguments = ["score", str(source), "--model", "broken", "-o", str(output)]
        environment = {"ASSAY_REPOSITORY": str(tmp_path / "cards")}
        result = run(*arguments, **environment)
        assert result.exit_code == 3
        assert "broken@1 could not be loaded" in result.stderr
        assert output.read_bytes() == b""


def test_a_model_that_scores_groups_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ReferenceModel, "sees", "group")
    source = write_items(tmp_path / "items.jsonl", [{"group": "g", **SCORED}])
    result = score(source, tmp_path / "scores.jsonl")
    assert result.exit_code == 2
    assert "scores whole groups" in result.stderr


class ChangingScorer:
    """A scorer whose model is replaced after some batches."""

    def __init__(self, batches: int) -> None:
        self._left = batches

    async def __call__(self, items: Sequence[Mapping[str, Any]]) -> list[ItemOutcome]:
        self._left -= 1
        identity = Identity("m@1", "old" if self._left >= 0 else "new")
        return [
            ItemOutcome(
                ItemResult(0, None, None, "ok", 1.0, 1.0, {}, [], 1, "computed", {}, None),
                identity,
            )
            for _ in items
        ]


async def test_a_model_that_changes_during_the_run_stops_it() -> None:
    lines = [InputLine(number, b'{"text": "%d"}' % number) for number in range(1, 10)]
    output = io.BytesIO()
    state = OutputState()
    reported: list[int] = []
    begun: list[int] = []
    with pytest.raises(Halted, match="fingerprint old"):
        await score_lines(
            iter(lines),
            ChangingScorer(batches=2),
            output=output,
            begin=lambda: begun.append(len(output.getvalue())),
            state=state,
            concurrency=Concurrency(batch_size=3, max_in_flight=2),
            report=lambda counts: reported.append(counts.done),
        )
    written = [orjson.loads(line) for line in output.getvalue().splitlines()]
    assert [row["line"] for row in written] == [1, 2, 3, 4, 5, 6]
    assert {row["fingerprint"] for row in written} == {"old"}
    assert (reported, begun) == ([3, 6], [0])


def test_a_digest_depends_on_the_text_and_not_on_the_line_ending() -> None:
    first, second, third = read_lines(io.BytesIO(b'{"a": 1}\r\n{"a": 1}\n\n{"a": 2}'))
    assert first.digest == second.digest != third.digest
    assert [first.number, second.number, third.number] == [1, 2, 4]


def test_a_record_starts_with_its_line_number() -> None:
    item = ItemResult(0, None, None, "ok", 1.0, 1.0, {}, [], 1, "rule", {}, None)
    assert encode_record(InputLine(7, b"{}"), ItemOutcome(item, None)).startswith(b'{"line":7,')


class TestProgress:
    def test_without_a_terminal_a_line_is_printed_every_few_seconds(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        times = iter([0.0, 1.0, 6.0, 6.0, 7.0, 20.0, 20.0])
        with shown_progress(1000, 100, lambda: next(times)) as report:
            for scored in (110, 160, 170, 300):
                report(LineCounts(scored=scored))
        assert capsys.readouterr().err.splitlines() == [
            "160 of 1,000 lines, 10.0/s, 1 min 24 s left, 0 failed",
            "300 of 1,000 lines, 10.0/s, 1 min 10 s left, 0 failed",
        ]

    def test_durations_are_formatted(self) -> None:
        formatted = [duration(seconds) for seconds in (0.4, 59.6, 3599, 7260, float("inf"))]
        assert formatted == ["0 s", "1 min 0 s", "59 min 59 s", "2 h 1 min", "unknown"]
