"""The program in a response: CodeScaler's rule by cases, and texts made to break the parser."""

import ast
import subprocess
import sys
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay_models import extraction
from assay_models.extraction import (
    MAX_CHARACTERS,
    MAX_DEPTH,
    Extracted,
    Extraction,
    Language,
    Reason,
)
from assay_models.extraction.hidden_characters import remove_hidden

PYTHON: tuple[Language, ...] = ("python",)
MODES: tuple[Extraction, ...] = ("strict", "last_block", "raw_code")
CODE = "def double(x):\n    return 2 * x"
OTHER = "print(double(4))"


def extract(response: str, mode: Extraction, language: str | None = None) -> Extracted:
    return extraction.extract(response, mode, language=language, languages=PYTHON)


def fence(body: str, tag: str = "python") -> str:
    return f"```{tag}\n{body}\n```"


STRICT: dict[str, tuple[str, str | None, Reason]] = {
    "tag python": (fence(CODE), CODE, "ok"),
    "no tag": (fence(CODE, ""), CODE, "ok"),
    "prose around it": (f"Here it is.\n{fence(CODE)}\nDone.", CODE, "ok"),
    "a space after the tag": (f"```python \n{CODE}\n```", None, "no_block"),
    "CRLF after the tag": (f"```python\r\n{CODE}\r\n```", None, "no_block"),
    "tag c++": (fence(CODE, "c++"), None, "no_block"),
    "tag python3.11": (fence(CODE, "python3.11"), None, "no_block"),
    "tag in braces": (fence(CODE, "{python}"), None, "no_block"),
    "tag cpp, body C++": (fence("int f(int x) { return x; }", "cpp"), None, "unknown_language"),
    "tag python, body C++": (fence("int f(int x) { return x; }"), None, "syntax_error"),
    "tag cpp, body Python": (fence(CODE, "cpp"), CODE, "ok"),
    "not closed": (f"```python\n{CODE}\n", None, "no_block"),
    "tildes": (f"~~~python\n{CODE}\n~~~", None, "no_block"),
    "four backticks": (f"````python\n{CODE}\n````", CODE, "ok"),
    "backticks in the prose before": (f"Mark code by ``` signs.\n{fence(CODE)}", CODE, "ok"),
    "a fenced example in a docstring": (
        fence('def f():\n    """Like\n    ```\n    f()\n    ```\n    """\n    return 1'),
        None,
        "multiple_blocks",
    ),
    "one fence line in a docstring": (
        fence('def f():\n    """Like\n    ```\n    """\n    return 1'),
        None,
        "syntax_error",
    ),
    "a block and its sample output": (
        f"{fence(CODE)}\nIt prints\n{fence('8', '')}",
        None,
        "multiple_blocks",
    ),
    "the same block twice": (f"{fence(CODE)}\n{fence(CODE)}", None, "multiple_blocks"),
    "a fence in the reasoning": (
        f"<think>\n{fence(OTHER)}\n</think>\n{fence(CODE)}",
        None,
        "multiple_blocks",
    ),
    "nothing between the fences": ("```python\n```", None, "empty"),
    "white space between the fences": (fence(" \t\n "), None, "empty"),
    "only a comment": (fence("# to be done"), "# to be done", "trivial"),
    "only pass": (fence("pass"), "pass", "trivial"),
    "only a docstring": (fence('"""To be done."""'), '"""To be done."""', "trivial"),
    "a NUL byte": (fence("x = 1\0"), None, "syntax_error"),
    "a byte order mark": (fence("\ufeffx = 1"), None, "syntax_error"),
    "a lone surrogate": (fence("x = '\ud800'"), None, "syntax_error"),
    "300 parentheses": (fence("(" * 300 + "1" + ")" * 300), None, "syntax_error"),
    "60,000 minus signs": (fence("-" * 60_000 + "1"), None, "parser_limit"),
    "too large": (fence("x = 1\n" * (MAX_CHARACTERS // 6 + 1)), None, "too_large"),
    "tag C#": (fence("int x;", "C#"), None, "no_block"),
    "100,000 minus signs": (fence("-" * 100_000 + "1"), None, "too_large"),
    "no fence": (CODE, None, "no_block"),
    "nothing": ("", None, "no_block"),
}


@pytest.mark.parametrize("case", STRICT)
def test_strict_extracts_the_only_block_or_gives_the_reason(case: str) -> None:
    response, code, reason = STRICT[case]
    extracted = extract(response, "strict")
    assert (extracted.code, extracted.reason) == (code, reason)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="this Python knows the newer syntax")
def test_syntax_newer_than_the_parser_is_a_syntax_error() -> None:
    assert extract(fence("type Pair = tuple[int, int]"), "strict").reason == "syntax_error"


def test_last_block_extracts_the_last_of_several_blocks() -> None:
    assert extract(f"{fence(OTHER)}\nthen\n{fence(CODE)}", "last_block").code == CODE
    assert extract(f"{fence(CODE)}\nthen\n{fence('1 +')}", "last_block").reason == "syntax_error"
    assert extract(CODE, "last_block").reason == "no_block"


def test_raw_code_extracts_the_whole_text() -> None:
    assert extract(f"\n{CODE}\n", "raw_code").code == CODE
    assert extract(fence(CODE), "raw_code").reason == "syntax_error"
    assert extract("", "raw_code").reason == "empty"


@pytest.mark.parametrize("language", ["python", "Python", "py3", ""])
def test_python_is_accepted_by_any_of_its_names(language: str) -> None:
    assert extract(fence(CODE), "strict", language).code == CODE


@pytest.mark.parametrize("language", ["cpp", "rust", "brainfuck"])
@pytest.mark.parametrize("mode", MODES)
def test_a_language_that_cannot_be_checked_has_no_program(mode: Extraction, language: str) -> None:
    extracted = extract(fence(CODE), mode, language)
    assert (extracted.code, extracted.reason) == (None, "unknown_language")


def test_the_size_limit_is_exact() -> None:
    fits = "x" * MAX_CHARACTERS
    assert extract(fits, "raw_code").code == fits
    assert extract(fits + "x", "raw_code").reason == "too_large"


def test_the_depth_limit_does_not_depend_on_the_call_stack() -> None:
    fits, deeper = (
        f"x = {' + '.join(['1'] * terms)}" for terms in (MAX_DEPTH - 10, MAX_DEPTH + 10)
    )

    def reasons(frames: int) -> tuple[Reason, Reason]:
        if frames:
            return reasons(frames - 1)
        return extract(fits, "raw_code").reason, extract(deeper, "raw_code").reason

    assert reasons(0) == reasons(500) == ("ok", "parser_limit")


def test_warnings_of_the_parser_are_suppressed_and_ignored() -> None:
    odd = fence("import re\nre.compile('\\d')\n1if 2else 3")
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        assert extract(odd, "strict").reason == "ok"
    assert not shown
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert extract(odd, "strict").reason == "ok"


HOSTILE = """
import threading
from assay_models.extraction import extract
texts = [sign * 100_000 for sign in ("(", "[", "{", "-", "`", "lambda:", "f'{", "a.", "not ")]
texts += ["(" * 100_000 + ")" * 100_000, "x" + ".x" * 30_000, "1" + "+1" * 30_000, "\\0" * 65_000]
def work():
    for text in texts:
        for body in (text, text[:65_000], text[:199] + "1"):
            for response in (body, "```python\\n" + body + "\\n```", "```" + body):
                for mode in ("strict", "last_block", "raw_code"):
                    extract(response, mode, languages=("python",))
work()
thread = threading.Thread(target=work)
thread.start()
thread.join()
print("alive")
"""


def test_hostile_texts_do_not_kill_the_process() -> None:
    done = subprocess.run(  # a crash of the parser would take the tests with it
        [sys.executable, "-c", HOSTILE], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "alive"), done.stderr[-500:]


PIECES = st.sampled_from(
    ["```", "```python\n", "\n```", "~~~", "\n", " ", CODE, "pass", "(", "'", '"""', "\0", "\ufeff"]
)
TEXTS = st.one_of(
    st.text(),
    st.text(st.characters(exclude_categories=())),  # lone surrogates too
    st.lists(st.one_of(PIECES, st.text(max_size=5)), max_size=12).map("".join),
)


@settings(max_examples=300, deadline=None)
@given(text=TEXTS, mode=st.sampled_from(MODES))
def test_any_text_extracts_and_an_extracted_program_parses(text: str, mode: Extraction) -> None:
    extracted = extract(text, mode)
    assert (extracted.code is not None) == (extracted.reason in ("ok", "trivial"))
    if extracted.code is not None:
        assert extracted.code in remove_hidden(text)[0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(extracted.code)


@settings(max_examples=100, deadline=None)
@given(before=st.text(), after=st.text())
def test_prose_without_backticks_changes_nothing(before: str, after: str) -> None:
    prose = f"{before.replace('`', '')}\n{fence(CODE)}\n{after.replace('`', '')}"
    assert extract(prose, "strict").code == CODE
