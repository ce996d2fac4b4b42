"""Parser workers: the verdicts of the calling process, from processes that die and are replaced."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from assay_models.extraction import LANGUAGES, extract
from assay_models.extraction.languages import Candidates
from assay_models.extraction.pool import ParserPool, ParserUnavailable
from assay_models.extraction.syntax import check_syntax
from assay_models.extraction.verdict import SyntaxVerdict

pytestmark = pytest.mark.slow

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


def parser_processes() -> set[int]:
    """Return the ids of the parser workers among the children of this process."""
    processes = set()
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if any("extraction.worker" in argument for argument in child.cmdline()):
                processes.add(child.pid)
    return processes


@pytest.fixture
def others() -> set[int]:
    """The workers of other tests' pools."""
    return parser_processes()


@pytest.fixture
def workers(others: set[int]) -> Callable[[], list[int]]:
    """The ids of the workers that a test has started."""
    return lambda: sorted(parser_processes() - others)


@pytest.fixture
def parsers(others: set[int]) -> Iterator[ParserPool]:
    pool = ParserPool()
    yield pool
    pool.close()


def test_no_worker_starts_before_the_first_text(
    parsers: ParserPool, workers: Callable[[], list[int]]
) -> None:
    assert workers() == []
    assert parsers.check_syntax("x = f(1)", PYTHON) == SyntaxVerdict("ok", "python")
    assert len(workers()) == 1


@pytest.mark.parametrize("candidates", [PYTHON, ANY, Candidates(("java", "python"), 2)])
def test_a_worker_gives_the_verdict_of_the_calling_process(
    parsers: ParserPool, candidates: Candidates
) -> None:
    for text in TEXTS:
        assert parsers.check_syntax(text, candidates) == check_syntax(text, candidates), text[:20]


def test_a_text_without_candidates_starts_no_worker(
    parsers: ParserPool, workers: Callable[[], list[int]]
) -> None:
    assert parsers.check_syntax("x", Candidates((), 0)) == SyntaxVerdict("syntax_error")
    assert workers() == []


def test_one_worker_serves_sequential_calls(
    parsers: ParserPool, workers: Callable[[], list[int]]
) -> None:
    for _ in range(20):
        parsers.check_syntax("x = f(1)", PYTHON)
    assert len(workers()) == 1


def test_many_threads_share_two_workers_and_get_their_own_answers(
    parsers: ParserPool, workers: Callable[[], list[int]]
) -> None:
    texts = [f"x{number} = f(1)" if number % 3 else f"x{number} =" for number in range(300)]
    with ThreadPoolExecutor(8) as threads:
        reasons = list(threads.map(lambda text: parsers.check_syntax(text, PYTHON).reason, texts))
    assert reasons == [check_syntax(text, PYTHON).reason for text in texts]
    assert 1 <= len(workers()) <= 2


def test_a_text_beyond_the_parser_limit_is_abandoned_and_the_next_is_parsed(
    parsers: ParserPool,
) -> None:
    java = Candidates(("java",), 1)
    assert parsers.check_syntax(ENDLESS, java) == SyntaxVerdict("parser_limit", "java")
    assert parsers.check_syntax("class A { int f() { return 1; } }", java).reason == "ok"


def test_hostile_texts_in_every_language_are_answered(parsers: ParserPool) -> None:
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
            extracted = extract(f"```\n{body}\n```", "strict", check=parsers.check_syntax)
            assert extracted.code is None or extracted.language == "python"
    assert extract("```\nx = f(1)\n```", "strict", check=parsers.check_syntax).reason == "ok"


def test_a_worker_killed_from_outside_is_replaced(
    parsers: ParserPool, workers: Callable[[], list[int]]
) -> None:
    parsers.check_syntax("x = f(1)", PYTHON)
    (first,) = workers()
    os.kill(first, signal.SIGKILL)
    assert parsers.check_syntax("x = f(1)", PYTHON).reason == "ok"
    (second,) = workers()
    assert second != first


def test_close_stops_the_workers_and_a_later_text_starts_new_ones(
    parsers: ParserPool, workers: Callable[[], list[int]]
) -> None:
    parsers.check_syntax("x = f(1)", PYTHON)
    (first,) = workers()
    parsers.close()
    assert workers() == []
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)
    parsers.close()
    assert parsers.check_syntax("x = f(1)", PYTHON).reason == "ok"


def test_deleting_the_pool_stops_its_workers(workers: Callable[[], list[int]]) -> None:
    parsers = ParserPool()
    parsers.check_syntax("x = f(1)", PYTHON)
    (first,) = workers()
    del parsers
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)


def test_without_an_interpreter_the_parser_is_unavailable(
    parsers: ParserPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    for _ in range(5):  # and no slot is lost
        with pytest.raises(ParserUnavailable, match="could be started"):
            parsers.check_syntax("x = 1", PYTHON)
    monkeypatch.undo()
    assert parsers.check_syntax("x = 1", PYTHON).reason == "ok"


def test_a_worker_that_cannot_start_is_unavailable(
    parsers: ParserPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(ParserUnavailable, match="status 1"):
        parsers.check_syntax("x = 1", PYTHON)


def test_extract_uses_the_pool(parsers: ParserPool) -> None:
    extracted = extract("```\nfn f() { g(); }\n```", "strict", check=parsers.check_syntax)
    assert (extracted.reason, extracted.language) == ("ok", "rust")


def _in_child(work: Callable[[], bool]) -> int:
    child = os.fork()
    if child == 0:
        os._exit(0 if work() else 1)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_has_workers_of_its_own(
    parsers: ParserPool, workers: Callable[[], list[int]]
) -> None:
    parsers.check_syntax("x = f(1)", PYTHON)
    own = workers()

    def work() -> bool:
        parsers.check_syntax("x = f(1)", PYTHON)
        in_child = parser_processes()
        parsers.close()
        return len(in_child) == 1 and not in_child & set(own)

    assert _in_child(work) == 0
    assert parsers.check_syntax("x = f(1)", PYTHON).reason == "ok"
    assert workers() == own


SCRIPT = """
import os, sys
import psutil
from assay_models.extraction.languages import Candidates
from assay_models.extraction.pool import ParserPool
parsers = ParserPool()
parsers.check_syntax("x = f(1)", Candidates(("python",), 1))
print(*(child.pid for child in psutil.Process().children()), flush=True)
if sys.argv[1] == "killed":
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("end", ["ends", "killed"])
def test_no_worker_outlives_the_process_that_started_it(end: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, end],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    worker = int(done.stdout)
    deadline = time.monotonic() + 30
    while _is_running(worker) and time.monotonic() < deadline:
        os.sched_yield()
    assert not _is_running(worker)


def _is_running(process: int) -> bool:
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


def test_a_worker_imports_no_large_library() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WORKER], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"
