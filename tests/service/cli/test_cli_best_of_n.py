"""`assay best-of-n`: candidates from arguments and files, ranked locally and on a server."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.item_files import run
from support.paths import DOCS
from support.servers import free_port, listening
from typer.testing import CliRunner

from assay.cli import app
from assay.settings import Settings
from assay_client import Client

PROMPT = "Name three colours of a flag"
GOOD, FAIR, POOR = "Three colours: red, white, blue, and a flag", "A flag", "No"
ASK = ("best-of-n", "--model", "reference", "--field", f"prompt={PROMPT}")
TOO_LONG = "word " * 5000
CALIBRATED = """
name = "calibrated"
version = 1
family = "reference"
[calibration]
margins = [0.0, 1.0]
confidence = [0.5, 0.8]
dataset = "pairs"
n = 100
command = "none"
"""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with listening(Settings(models=("reference",))) as url:
        yield url


def rank(*arguments: str, code: int = 0) -> dict[str, Any]:
    result = run(*ASK, "--json", *arguments)
    assert result.exit_code == code, result.output
    reply: dict[str, Any] = json.loads(result.stdout)
    return reply


def refuse(*arguments: str, code: int = 2) -> str:
    result = run(*arguments)
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    assert result.stdout == ""
    return result.stderr


def order(reply: dict[str, Any]) -> list[int]:
    return [place["index"] for place in reply["ranking"]]


class TestRanking:
    def test_the_best_candidate_comes_first(self) -> None:
        reply = rank(POOR, GOOD, FAIR)
        assert reply["best"] == 1
        assert order(reply) == [1, 2, 0]
        assert reply["ranking"][0]["margin"] > 0

    def test_the_table_equals_the_pages(self) -> None:
        page = (DOCS / "reference" / "cli.md").read_text(encoding="utf-8")
        section = page.partition("\n## assay best-of-n\n")[2]
        table = re.search(r"\nrank .*?(?=```)", section, re.DOTALL)
        assert table is not None
        shown = run(*ASK, POOR, FAIR, GOOD).stdout
        for row, expected in zip(
            shown.splitlines(), table[0].strip("\n").splitlines(), strict=True
        ):
            if not row.startswith("─"):
                assert row.split() == expected.split()

    def test_local_and_remote_rankings_are_equal(self, url: str) -> None:
        local, remote = rank(POOR, GOOD, FAIR), rank(POOR, GOOD, FAIR, "--url", url)
        with Client(url) as client:
            ranked = client.best_of_n("reference", [POOR, GOOD, FAIR], prompt=PROMPT)
        assert [place["index"] for place in remote["ranking"]] == [
            place.index for place in ranked.ranking
        ]
        for reply in (local, remote):
            for result in reply["results"]:
                assert result.pop("source") in {"computed", "cache"}
        assert local == remote

    def test_all_options_apply_locally_and_remotely(self, url: str) -> None:
        options = ["--top-n", "1", "--tie-margin", "9", "--abstain-below", "5", "--raw"]
        for where in ([], ["--url", url]):
            reply = rank(POOR, GOOD, *options, *where)
            assert len(reply["ranking"]) == 1
            assert reply["ties"] == [[1, 0]]
            assert (reply["best"], reply["abstained"]) == (None, True)

    def test_an_abstention_is_reported(self) -> None:
        result = run(*ASK, GOOD, "--abstain-below", "5")
        assert result.exit_code == 0
        reason = "the best score is 0.5108, below --abstain-below 5"
        assert result.stderr == f"none is chosen: {reason}\n"
        assert "best" not in result.stdout

    def test_an_abstention_without_a_score_is_reported(self) -> None:
        result = run(*ASK, TOO_LONG, "--abstain-below", "5")
        assert result.stderr.endswith("\nnone is chosen: no candidate has a score\n")

    @pytest.mark.parametrize(
        ("candidates", "min_confidence", "reason"),
        [
            ((FAIR, POOR), "0.9", "the confidence is 0.8000, below --min-confidence 0.9"),
            ((FAIR, FAIR), "0.5", "the best candidates are tied"),
            (
                (FAIR,),
                "0.5",
                "the confidence is unknown: a rule decided a score, or only one candidate has one",
            ),
        ],
    )
    def test_an_abstention_for_its_confidence_is_reported(
        self, candidates: tuple[str, ...], min_confidence: str, reason: str, tmp_path: Path
    ) -> None:
        folder = tmp_path / "calibrated" / "1"
        folder.mkdir(parents=True)
        (folder / "card.toml").write_text(CALIBRATED)
        ask = ("best-of-n", "--model", "calibrated", "--field", f"prompt={PROMPT}", *candidates)
        options = ("--abstain-below", "-9", "--min-confidence", min_confidence)
        result = run(*ask, *options, ASSAY_REPOSITORY=str(tmp_path))
        assert result.stderr == f"none is chosen: {reason}\n"

    def test_a_candidate_without_a_score_comes_last_with_its_reason(self) -> None:
        reply = rank(TOO_LONG, FAIR, code=1)
        assert order(reply) == [1, 0]
        assert reply["ranking"][1]["score"] is None
        result = run(*ASK, TOO_LONG, FAIR)
        assert result.exit_code == 1
        assert "input_too_long" in result.stdout.splitlines()[-1]
        assert result.stderr.startswith("candidate 1: input_too_long: ")
        assert rank(TOO_LONG, FAIR, "--truncation", "right")["results"][0]["score"] is not None

    def test_ties_and_flags_are_noted(self) -> None:
        rows = run(*ASK, FAIR, f" {FAIR} ", TOO_LONG, "--truncation", "left").stdout.splitlines()
        assert sum("tied" in row for row in rows) >= 2
        assert sum("truncated" in row for row in rows) == 1

    def test_a_candidate_sends_no_control_characters_to_the_terminal(self) -> None:
        shown = run(*ASK, "a\x1b[2Jflag", "[red]no[/red]").stdout
        assert "\x1b" not in shown
        assert "[red]no[/red]" in shown


class TestInputs:
    @pytest.fixture(params=["file", "stdin"])
    def rank_lines(self, request: Any, tmp_path: Path) -> Any:
        def ask(text: str | bytes, *more: str) -> Any:
            body = text.encode() if isinstance(text, str) else text
            source = "-"
            if request.param == "file":
                source = str(tmp_path / "candidates")
                Path(source).write_bytes(body)
            arguments = [*ASK, "--json", "--file", source, *more]
            return CliRunner().invoke(app, arguments, input=body)

        return ask

    def test_lines_are_candidates_after_the_arguments(self, rank_lines: Any) -> None:
        result = rank_lines(f"{POOR}\r\n\n  \n{GOOD}", FAIR)
        assert result.exit_code == 0
        assert order(json.loads(result.stdout)) == [2, 0, 1]

    def test_lines_of_json_are_texts_or_fields(self, rank_lines: Any) -> None:
        lines = [POOR, {"response": GOOD, "id": "g"}, "a flag\nof three colours"]
        result = rank_lines("".join(json.dumps(line) + "\n" for line in lines), "--jsonl")
        reply = json.loads(result.stdout)
        assert [result["id"] for result in reply["results"]] == [None, "g", None]
        assert reply["best"] != 0

    @pytest.mark.parametrize(
        ("body", "jsonl", "reason"),
        [
            (b"a\n\xff\n", False, "line 2 of"),
            (b'"a"\n{"response": \n', True, "line 2 of"),
            (b"[1]\n", True, "line 1 of"),
            (b'{"response": NaN}\n', True, "line 1 of"),
            (b"\n \n", False, "no candidate"),
        ],
    )
    def test_an_unreadable_line_is_reported_with_its_number(
        self, rank_lines: Any, body: bytes, jsonl: bool, reason: str
    ) -> None:
        result = rank_lines(body, *(["--jsonl"] if jsonl else []))
        assert result.exit_code == 2
        assert reason in result.stderr
        assert "Traceback" not in result.output

    def test_a_missing_file_is_a_usage_error(self, tmp_path: Path) -> None:
        assert "cannot read" in refuse(*ASK, "--file", str(tmp_path / "none"))

    def test_a_field_may_be_json(self) -> None:
        messages = json.dumps([{"role": "user", "content": PROMPT}])
        ask = ("best-of-n", "--model", "reference", "--json", GOOD)
        result = run(*ask, "-f", f"prompt:={json.dumps(PROMPT)}")
        assert json.loads(result.stdout)["best"] == 0
        assert "prompt" in refuse(*ask, "-f", f"prompt:={messages[:-1]}")

    @pytest.mark.parametrize(
        "field", ["prompt", "=a", ":=1", "model=code", "timeout=3", "prompt:=", "prompt:=NaN"]
    )
    def test_a_malformed_field_is_a_usage_error(self, field: str) -> None:
        stderr = refuse("best-of-n", "--model", "reference", "-f", field, "a")
        assert stderr.startswith("error: ")


class TestRefusals:
    def test_no_candidate_is_a_usage_error(self) -> None:
        assert "no candidate" in refuse(*ASK)

    def test_an_unknown_model_is_a_usage_error(self) -> None:
        assert "no model 'unknown'" in refuse("best-of-n", "--model", "unknown", "a")

    @pytest.mark.parametrize("remote", [False, True])
    def test_a_field_that_the_model_does_not_have_is_a_usage_error(
        self, url: str, remote: bool
    ) -> None:
        more = ["--url", url] if remote else []
        assert "colour" in refuse(*ASK, "-f", "colour=red", "a", *more)

    @pytest.mark.parametrize("remote", [False, True])
    def test_confidence_without_calibration_is_a_usage_error(self, url: str, remote: bool) -> None:
        more = ["--url", url] if remote else []
        assert "not calibrated" in refuse(*ASK, "--min-confidence", "0.9", "a", *more)

    @pytest.mark.parametrize("option", ["--tie-margin", "--abstain-below", "--min-confidence"])
    def test_a_number_that_is_not_finite_is_a_usage_error(self, option: str) -> None:
        assert option in refuse(*ASK, option, "nan", "a")

    def test_an_unreachable_server_stops_the_command(self) -> None:
        away = f"http://127.0.0.1:{free_port()}"
        stderr = refuse(*ASK, "a", "--url", away, "--timeout", "0.2", code=3)
        assert "hint: start the server, " in stderr

    def test_a_malformed_url_is_a_usage_error(self) -> None:
        assert "--url" in refuse(*ASK, "a", "--url", "nowhere")

    @pytest.mark.parametrize("remote", [False, True])
    def test_a_text_that_is_not_unicode_fails_without_a_traceback(
        self, url: str, remote: bool
    ) -> None:
        more = ["--url", url] if remote else []
        result = run(*ASK, "a \udcff", *more)
        assert result.exit_code in (1, 2)
        assert "Traceback" not in result.output
