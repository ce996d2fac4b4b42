"""The comparison of printed with actual output finds differences, and only those."""

import pytest

from .outputs import DifferentOutput, check_output
from .sessions import commands_of, is_server

REPLY = '{"id": "score-1", "results": [{"id": "a", "score": 1.2345}], "timing": {"total_ms": 3.1}}'


@pytest.mark.parametrize(
    ("printed", "actual"),
    [
        (REPLY, REPLY.replace("score-1", "score-2").replace("3.1", "9.9")),
        (REPLY.replace("1.2345", "1.234"), REPLY),
        (REPLY.replace('{"id": "a", "score": 1.2345}', '"…"'), REPLY),
        ('{"id": "x", "…": "…"}', REPLY),
        ('[1, "…"]', "[1, 2, 3]"),
        ('{"a": 1}\n{"a": 2}', '{"a":1}\n{"a":2}\n'),
        ("rank  score\n   1   0.50", "rank score\n1 0.5001"),
        ("2 of 2 lines; 0.2 s", "2 of 2 lines; 11.4 s"),
        ("INFO: Started server process [17]", "INFO: Started server process [99999]"),
        ("2026-12-01T09:30:00+0000 INFO: a", "2027-01-31T21:05:59-0130 INFO: a"),
        ("first\n…\nlast", "first\nsecond\nthird\nlast"),
        ("known: a, …", "known: a, b, c"),
        ("", "\n"),
    ],
)
def test_equal_outputs_pass(printed: str, actual: str) -> None:
    check_output(printed, actual)


@pytest.mark.parametrize(
    ("printed", "actual"),
    [
        (REPLY, REPLY.replace("1.2345", "1.2385")),
        (REPLY, REPLY.replace('"a"', '"b"')),
        (REPLY, REPLY.replace('"score": ', '"value": ')),
        ('{"id": "x"}', REPLY),
        ("[1]", "[1, 2]"),
        ('[1, 2, "…"]', "[1]"),
        ('{"a": 1}', '{"a": 1}\n{"a": 2}'),
        ("true", "1"),
        ('{"ready": true}', '{"ready": 1}'),
        ("score 0.5", "score 0.51"),
        ("score 5 of 7", "score 5 of 8"),
        ("first\nsecond", "first"),
        ("first", "first\nsecond"),
        ("first\n…\nlast", "first\nsecond"),
        ("", "a warning"),
        ("a warning", ""),
    ],
)
def test_different_outputs_fail(printed: str, actual: str) -> None:
    with pytest.raises(DifferentOutput):
        check_output(printed, actual)


def test_a_tolerance_applies_to_numbers_in_text_and_json() -> None:
    check_output("reward 1.05", "reward 1.00", tolerance=0.1)
    check_output('{"reward": 1.05}', '{"reward": 1.00}', tolerance=0.1)
    with pytest.raises(DifferentOutput):
        check_output("reward 1.05", "reward 1.00", tolerance=0.01)


def test_commands_end_where_quotes_and_lines_are_complete() -> None:
    lines = ["$ curl -d '{", '  "a": 1}\'', "out", "$ ls \\", "    folder", "", "$ echo $?", "0"]
    assert list(commands_of(lines)) == [
        ("curl -d '{\n  \"a\": 1}'", ["out"]),
        ("ls \\\n    folder", [""]),
        ("echo $?", ["0"]),
    ]


def test_a_command_that_serves_is_recognised() -> None:
    assert is_server("make serve    # installs")
    assert is_server("ASSAY_MODELS=a assay serve --port 8123")
    assert not is_server("assay serve --help")
    assert not is_server("assay score serve.jsonl")
