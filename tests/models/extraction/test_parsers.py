"""Workers that parse: the same verdicts as here, from processes that die and are replaced."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from assay_models.extraction import LANGUAGES, extract
from assay_models.extraction.languages import Candidates
from assay_models.extraction.pool import Parsers, ParserUnavailable
from assay_models.extraction.syntax import judge
from assay_models.extraction.verdict import Verdict

PYTHON = Candidates(("python",), 1)
ANY = Candidates(LANGUAGES, 1)
TEXTS = (
    "x = f(1)",
    "x =",
    "pass",
    "func f() { g() }",
    "class A { int f() { return 1; } }",
    "né = 'ü'",
    "x = '\ud800'",
    "x\0",
    "-" * 60_000 + "1",
    "x;" * 30_000,
    "",
)
# A text on which one step of a grammar takes longer, and more memory, than a worker has.
ENDLESS = "a<b<" * 16_000


@pytest.fixture
def parsers() -> Iterator[Parsers]:
    made = Parsers()
    yield made
    made.close()


def workers(parsers: Parsers) -> list[int]:
    return sorted(worker.pid for worker in parsers.workers())


def test_no_worker_starts_before_the_first_text(parsers: Parsers) -> None:
    assert workers(parsers) == []
    assert parsers.judge("x = f(1)", PYTHON) == Verdict("ok", "python")
    assert len(workers(parsers)) == 1


@pytest.mark.parametrize("candidates", [PYTHON, ANY, Candidates(("java", "python"), 2)])
def test_a_worker_says_what_the_parsers_say_here(parsers: Parsers, candidates: Candidates) -> None:
    for text in TEXTS:
        assert parsers.judge(text, candidates) == judge(text, candidates), text[:20]


def test_what_is_tried_as_nothing_needs_no_worker(parsers: Parsers) -> None:
    assert parsers.judge("x", Candidates((), 0)) == Verdict("syntax_error")
    assert workers(parsers) == []


def test_one_worker_serves_calls_that_follow_each_other(parsers: Parsers) -> None:
    for _ in range(20):
        parsers.judge("x = f(1)", PYTHON)
    assert len(workers(parsers)) == 1


def test_many_threads_share_two_workers_and_get_their_own_answers(parsers: Parsers) -> None:
    texts = [f"x{number} = f(1)" if number % 3 else f"x{number} =" for number in range(300)]
    with ThreadPoolExecutor(8) as threads:
        reasons = list(threads.map(lambda text: parsers.judge(text, PYTHON).reason, texts))
    assert reasons == [judge(text, PYTHON).reason for text in texts]
    assert 1 <= len(workers(parsers)) <= 2


def test_a_text_without_end_is_given_up_and_the_next_is_parsed(parsers: Parsers) -> None:
    java = Candidates(("java",), 1)
    assert parsers.judge(ENDLESS, java) == Verdict("parser_limit", "java")
    assert parsers.judge("class A { int f() { return 1; } }", java).reason == "ok"


def test_hostile_texts_in_every_language_are_answered(parsers: Parsers) -> None:
    signs = (
        "(",
        "[",
        "{",
        "-",
        "a.",
        "a(",
        "a<b<",
        "a?.",
        "template<",
        "=>",
        "`${",
        "/*",
        "'",
        "\0",
    )
    for sign in signs:
        for body in (sign * 100_000, sign * (60_000 // len(sign)), sign * 199 + "1"):
            found = extract(f"```\n{body}\n```", "strict", judge=parsers.judge)
            assert found.code is None or found.language == "python"
    assert extract("```\nx = f(1)\n```", "strict", judge=parsers.judge).reason == "ok"


def test_a_worker_killed_from_outside_is_replaced(parsers: Parsers) -> None:
    parsers.judge("x = f(1)", PYTHON)
    (first,) = workers(parsers)
    os.kill(first, signal.SIGKILL)
    assert parsers.judge("x = f(1)", PYTHON).reason == "ok"
    (second,) = workers(parsers)
    assert second != first


def test_closing_ends_the_workers_and_a_later_text_starts_others(parsers: Parsers) -> None:
    parsers.judge("x = f(1)", PYTHON)
    (first,) = workers(parsers)
    parsers.close()
    assert workers(parsers) == []
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)
    parsers.close()
    assert parsers.judge("x = f(1)", PYTHON).reason == "ok"


def test_the_end_of_the_object_ends_the_workers() -> None:
    parsers = Parsers()
    parsers.judge("x = f(1)", PYTHON)
    (first,) = workers(parsers)
    del parsers
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)


def test_without_an_interpreter_nothing_is_decided(
    parsers: Parsers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    for _ in range(5):  # and no place is lost
        with pytest.raises(ParserUnavailable, match="could be started"):
            parsers.judge("x = 1", PYTHON)
    monkeypatch.undo()
    assert parsers.judge("x = 1", PYTHON).reason == "ok"


def test_a_worker_that_cannot_run_decides_nothing(
    parsers: Parsers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(ParserUnavailable, match="status 1"):
        parsers.judge("x = 1", PYTHON)


def test_extraction_through_a_worker(parsers: Parsers) -> None:
    found = extract("```\nfn f() { g(); }\n```", "strict", judge=parsers.judge)
    assert (found.reason, found.language) == ("ok", "rust")


def _in_child(work: Callable[[], bool]) -> int:
    child = os.fork()
    if child == 0:
        os._exit(0 if work() else 1)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_has_workers_of_its_own(parsers: Parsers) -> None:
    parsers.judge("x = f(1)", PYTHON)
    mine = workers(parsers)

    def work() -> bool:
        parsers.judge("x = f(1)", PYTHON)
        theirs = workers(parsers)
        parsers.close()
        return len(theirs) == 1 and theirs != mine

    assert _in_child(work) == 0
    assert parsers.judge("x = f(1)", PYTHON).reason == "ok"
    assert workers(parsers) == mine


LIVES = """
import os, sys
from assay_models.extraction.languages import Candidates
from assay_models.extraction.pool import Parsers
parsers = Parsers()
parsers.judge("x = f(1)", Candidates(("python",), 1))
print(*(worker.pid for worker in parsers.workers()), flush=True)
if sys.argv[1] == "killed":
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("end", ["ends", "killed"])
def test_no_worker_outlives_the_process_that_started_it(end: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LIVES, end],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    worker = int(done.stdout)
    until = time.monotonic() + 30
    while _runs(worker) and time.monotonic() < until:
        os.sched_yield()
    assert not _runs(worker)


def _runs(process: int) -> bool:
    try:
        with open(f"/proc/{process}/stat", encoding="ascii") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


WORKER = """
import sys
from assay_models.extraction import worker
print(sorted({"torch", "transformers", "numpy", "pydantic", "tree_sitter"} & set(sys.modules)))
"""


def test_a_worker_imports_nothing_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WORKER], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"
