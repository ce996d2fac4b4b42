"""`solution`: a wrapping does not change the program, and one of several blocks is chosen."""

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.wrappings import AROUND, FENCES, LINE_ENDS, PROGRAMS, TAGS, USES, fenced

from assay_models.extraction import (
    LANGUAGES,
    MAX_CHARACTERS,
    Extracted,
    Language,
    Reason,
    extract,
)
from assay_models.extraction.solution import ChosenBy
from assay_models.extraction.verdict import SyntaxVerdict

WRAPPED = tuple(PROGRAMS)
NONE: frozenset[str] = frozenset()
ADD = PROGRAMS["python"]
SUBTRACT = "def subtract(a, b):\n    return a - b"


def solve(
    response: str, asked: frozenset[str] = NONE, languages: tuple[Language, ...] = LANGUAGES
) -> Extracted:
    return extract(response, "solution", languages=languages, asked=asked)


def python(response: str, *asked: str) -> Extracted:
    return solve(response, frozenset(asked), ("python",))


@pytest.mark.parametrize("language", WRAPPED)
@pytest.mark.parametrize("name", FENCES)
def test_a_program_is_found_in_every_fence_under_every_tag(name: str, language: Language) -> None:
    for tag in TAGS[language]:
        found = solve(FENCES[name](PROGRAMS[language], tag))
        assert (found.code, found.reason, found.language) == (PROGRAMS[language], "ok", language), (
            tag
        )


@pytest.mark.parametrize("language", WRAPPED)
@pytest.mark.parametrize("name", AROUND)
def test_a_program_is_found_inside_every_wrapping(name: str, language: Language) -> None:
    tag, program = TAGS[language][0], PROGRAMS[language]
    found = solve(AROUND[name](fenced(program, tag), tag))
    assert (found.code, found.reason, found.language) == (program, "ok", language)


@pytest.mark.parametrize("language", WRAPPED)
@pytest.mark.parametrize("end", LINE_ENDS)
def test_the_kind_of_line_ends_does_not_change_the_program(end: str, language: Language) -> None:
    program = PROGRAMS[language]
    assert solve(fenced(program, TAGS[language][0]).replace("\n", end)).code == program


@pytest.mark.parametrize("language", WRAPPED)
def test_a_use_of_the_program_behind_it_is_not_the_program(language: Language) -> None:
    blocks = [fenced(text[language], TAGS[language][0]) for text in (PROGRAMS, USES)]
    found = solve("\n\nUsage:\n\n".join(blocks))
    assert found.code == PROGRAMS[language]
    assert found.choice == ("only_program", 1, 2)


@settings(max_examples=150, deadline=None)
@given(
    language=st.sampled_from(WRAPPED),
    fence=st.sampled_from(sorted(set(FENCES) - {"not closed"})),
    around=st.lists(st.sampled_from(sorted(AROUND)), max_size=3, unique=True),
    data=st.data(),
)
def test_composed_wrappings_do_not_change_the_program(
    language: Language, fence: str, around: list[str], data: st.DataObject
) -> None:
    tag = data.draw(st.sampled_from(TAGS[language]))
    response = FENCES[fence](PROGRAMS[language], tag)
    for name in around:
        response = AROUND[name](response, TAGS[language][0])
    response = response.replace("\n", data.draw(st.sampled_from(LINE_ENDS)))
    assert solve(response).code == PROGRAMS[language]


DOCSTRING = (
    'def add(a, b):\n    """Add.\n\n    ```py\n    add(1, 2)\n    ```\n    """\n    return a'
)
FLAT = 'def add(a, b):\n    """Add.\n```\nadd(1, 2)\n```\n"""\n    return a + b'
TEMPLATE = (
    "const help = `\n```js\nadd(1, 2)\n```\n`.length + add(1);\nfunction add(a) { return a; }"
)
TAGGED = 'def strip(text):\n    return text.replace("<think>", "").split("</think>")[-1]'
PROMPTS = 'TEMPLATE = """\n<think>\n{thoughts}\n</think>\n"""\ndef show():\n    print(TEMPLATE)'


@pytest.mark.parametrize("program", [DOCSTRING, FLAT, TAGGED, PROMPTS])
def test_fences_and_tags_inside_a_program_are_a_part_of_it(program: str) -> None:
    assert python(fenced(program, "python")).code == program
    assert python(f"<think>\nHm.\n</think>\n{fenced(program)}").code == program
    assert python(f"{fenced(program)}\nUsage:\n{fenced('print(add(1, 2))')}").code == program


def test_a_program_may_end_at_a_fence_behind_one_that_is_open_text() -> None:
    assert solve(fenced(DOCSTRING, "python") + "\n" + fenced("1", "output")).code == DOCSTRING


EARLIER = "def add(a, b):\n    return b + a"
SKELETON = "def add(a, b):\n    ..."
BOTH = f"{SUBTRACT}\n\n\n{ADD}"
SOLUTION = "class Solution:\n    def twoSum(self, a):\n        return a[0]"
NODE = "class Node:\n    value = 0"
HEAD = "def head(n):\n    return Node()"
TEST = "def test_add():\n    assert add(1, 2) == 3"
SCRIPT = "n = int(input())\nprint(n)"
CUT = "```python\ndef add(a, b):\n    c = a"


def blocks(*programs: str) -> str:
    return "\n\nThen:\n\n".join(map(fenced, programs))


SELECTED: dict[str, tuple[str, tuple[str, ...], str | None, ChosenBy | Reason]] = {
    "the block that is asked for": (blocks(ADD, SUBTRACT), ("add",), ADD, "defines_asked"),
    "the last that defines it": (blocks(EARLIER, ADD), ("add",), ADD, "defines_asked"),
    "the one that defines most": (blocks(BOTH, ADD), ("add", "subtract"), BOTH, "defines_asked"),
    "a method that is asked for": (blocks(SOLUTION, ADD), ("twoSum",), SOLUTION, "defines_asked"),
    "a program before its skeleton": (blocks(ADD, SKELETON), ("add",), ADD, "defines_asked"),
    "a closed block before a cut one": (f"{fenced(ADD)}\n{CUT}", ("add",), ADD, "defines_asked"),
    "a later version": (blocks(EARLIER, ADD), (), ADD, "last_version"),
    "a program and its tests": (blocks(ADD, TEST), (), ADD, "only_program"),
    "a program and a cut use": (f"{fenced(ADD)}\n```\nprint(add(1,", (), ADD, "only_program"),
    "two programs": (blocks(ADD, SUBTRACT), (), None, "multiple_blocks"),
    "two parts of a program": (blocks(NODE, HEAD), (), None, "multiple_blocks"),
    "two scripts": (blocks("print(1)", "print(2)"), (), None, "multiple_blocks"),
    "no block, a program": (ADD, (), ADD, "whole_answer"),
    "no block, a script that prints": (SCRIPT, (), SCRIPT, "whole_answer"),
    "no block, in answer tags": (f"<answer>\n{ADD}\n</answer>", (), ADD, "whole_answer"),
    "a word": ("answer", (), None, "no_block"),
    "prose that parses": ("x is y", (), None, "no_block"),
    "thoughts alone": (f"<think>\n{fenced(ADD)}", (), None, "unclosed_thought"),
    "no program in any block": (blocks("1 +", "ls -l /"), (), None, "syntax_error"),
    "a block with nothing in it": ("```python\n\n```", (), None, "no_block"),
    "more blocks than are read": ("```\nx = f(1)\n```\n" * 70, (), None, "multiple_blocks"),
}


@pytest.mark.parametrize("case", SELECTED)
def test_the_program_among_several_blocks_is_chosen_by_the_stated_rule(case: str) -> None:
    response, asked, code, rule = SELECTED[case]
    found = python(response, *asked)
    assert found.code == code
    assert (found.choice.chosen_by if found.choice else found.reason) == rule


NEWER = (
    'def show[T](x: T) -> str:\n    return f"{d["a"]:>{len("x")}} {x!r} {x = }" "b"',
    "class Stack[T](list[T]):\n    pass\n\ntype Pair[T] = tuple[T, T]\nprint(Stack())",
    "def lines(v):\n    return f\"{'\\n'.join(v)}\"",
    'def deep(x):\n    return f"{f"{f"{x}"}"}"',
)


@pytest.mark.parametrize("program", NEWER)
def test_newer_python_is_python_on_every_server(program: str) -> None:
    found = python(fenced(program, "python"))
    assert (found.code, found.reason, found.language) == (program, "ok", "python")
    assert found.is_newer == (sys.version_info < (3, 12))


@pytest.mark.parametrize(
    "program",
    [
        'print "hello"',
        "def f[T](x: T) -> T\n    return x",
        'def f(x):\n    return f"{x["a"]"',
        'f"{x["a"]}"\nprint "hello"',
        "def f[T](x):\n    break",
    ],
)
def test_an_error_in_newer_python_stays_an_error(program: str) -> None:
    assert python(fenced(program)).reason == "syntax_error"


@pytest.mark.parametrize("program", ["return 1", "x = 1\nawait f(x)", "break", "yield 1"])
def test_a_program_must_compile_where_the_paper_only_parses(program: str) -> None:
    assert python(fenced(program)).reason == "syntax_error"
    assert extract(fenced(program), "strict", languages=("python",)).code == program


@pytest.mark.parametrize("mode", ["strict", "solution"])
@pytest.mark.parametrize(
    "program",
    [
        "def add(a, b): pass",
        'def add(a, b):\n    """Add."""\n    ...',
        "import math\nclass Solution:\n    def add(self, a, b):\n        pass",
        "def add(a, b):\n    raise NotImplementedError",
        "async def add(a, b):\n    raise NotImplementedError('later')",
        "[1, 2]",
        "Output: 8",
    ],
)
def test_a_python_program_of_empty_bodies_is_trivial(mode: str, program: str) -> None:
    strict = mode == "strict"
    found = extract(fenced(program), "strict" if strict else "solution", languages=("python",))
    assert (found.code, found.reason) == (program, "trivial")


@pytest.mark.parametrize(
    "program",
    ["@dataclass\nclass A:\n    x: int", "class A:\n    x: int", "def f(): return", "f()"],
)
def test_a_python_program_that_states_something_is_not_trivial(program: str) -> None:
    assert python(fenced(program)).reason == "ok"


CONTEST = """#include <bits/stdc++.h>
using namespace std;
#define rep(i,n) for(int i=0;i<(n);++i)
#define each(x, ...) for (auto &x : vector<int>{__VA_ARGS__})
#define all(x) (x).begin(), \\
    (x).end()
#define int long long
#define NAME(a, b) a##b
signed main() {
  int n; cin >> n; vector<int> v(n);
  rep(i, n) { cin >> v[i]; }
  rep (i, (n + 1)) cout << "rep(i,n)" << v[i];
  each(x, 1, 2) { cout << x; }
  int NAME(to, tal) = 0;
  sort(all(v));
}"""


@pytest.mark.parametrize("tag", ["cpp", "c++", ""])
def test_macros_of_contests_are_read_and_the_program_is_kept(tag: str) -> None:
    found = solve(fenced(CONTEST, tag), languages=("cpp",) if not tag else LANGUAGES)
    assert (found.code, found.reason, found.language) == (CONTEST, "ok", "cpp")
    assert extract(fenced(CONTEST, "cpp"), "strict").reason == "syntax_error"


@pytest.mark.parametrize(
    "macros",
    [
        "#define rep(i,n) for(int i=0;i<(n);++i)",
        "#define a b\n#define b a",
        "#define f(x) f(f(x))",
        "#define x x x x x x x x",
        "#define g(",
    ],
)
def test_macros_do_not_repair_a_broken_program(macros: str) -> None:
    broken = f"{macros}\nint main() {{ f(x); a g(1) rep(i, 3 {{ }}"
    assert solve(fenced(broken, "cpp")).reason in ("syntax_error", "parser_limit")


def test_hidden_characters_are_removed_under_the_languages_rule() -> None:
    found = python(fenced("x = f('\u200b')"))
    assert (found.code, found.hidden) == ("x = f('')", 1)
    assert python(fenced("return\u200b 1")).reason == "syntax_error"


def test_the_size_limit_holds_for_the_program_and_not_for_the_answer() -> None:
    fits = "x = f(1)\n" * (MAX_CHARACTERS // 9)
    assert python(f"{'Prose. ' * MAX_CHARACTERS}\n{fenced(fits)}").code == fits.strip()
    assert python(fenced(fits * 2)).reason == "too_large"
    assert python("no program " * MAX_CHARACTERS).reason == "no_block"


@pytest.mark.parametrize(
    "part",
    ["```\nx\n```\n", "```a\n", "~~~\n", "<think>", "</think>\n", "a <think> ", "> ", "- ```\n"],
)
def test_many_marks_cost_a_bounded_number_of_parses(part: str) -> None:
    parsed: list[str] = []

    def count(code: str, candidates: object) -> SyntaxVerdict:
        parsed.append(code)
        return SyntaxVerdict("syntax_error")

    response = part * (500_000 // len(part))
    extract(response, "solution", languages=("python",), check=count)
    assert sum(map(len, parsed)) <= 4 * MAX_CHARACTERS
    assert len(parsed) <= 400


@pytest.mark.parametrize(
    "text",
    [
        "~~~ " * 250_000 + "`",
        "```" + " " * 1_000_000 + "`",
        f"{'`' * 60_001}\n{'`' * 60_000}",
        "> " * 500_000 + "```",
        "x = f(1)" + "\n" * 60_000 + "return[T]",
    ],
)
def test_the_blocks_of_any_text_are_found_in_one_pass(text: str) -> None:
    assert python(text).code is None


@pytest.mark.parametrize(
    ("line", "opens"),
    [
        ("```python", True),
        ("``` \t python", True),
        ("~~~ `a`", False),
        ("~~~ ~~~ python", True),
        ("``` ``` python", True),
        ("```` `", False),
        ("~```python", False),
    ],
)
def test_a_fence_opens_a_block_if_no_backtick_follows_on_its_line(line: str, opens: bool) -> None:
    assert python(f"{line}\n{ADD}").code == (ADD if opens else None)


TEXTS = st.lists(
    st.one_of(
        st.sampled_from(
            [
                "```",
                "```python\n",
                "\n```\n",
                "~~~\n",
                "\n",
                "> ",
                "- ",
                "<think>",
                "</think>\n",
                ADD,
            ]
        ),
        st.text(max_size=5),
    ),
    max_size=12,
).map("".join)


@settings(max_examples=300, deadline=None)
@given(text=TEXTS)
def test_any_text_has_a_program_or_a_reason(text: str) -> None:
    found = python(text)
    assert (found.code is not None) == (found.reason in ("ok", "trivial"))
    if found.code is not None:
        assert python(fenced(found.code, "python", "~~~~~~~~~")).code == found.code
