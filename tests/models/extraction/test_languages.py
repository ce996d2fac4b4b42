"""Programs in other languages than Python: how the language is chosen, and how it is checked."""

import subprocess
import sys
from typing import get_args

import pytest

from assay_models.extraction import LANGUAGES, MAX_DEPTH, Language, Reason, extract
from assay_models.extraction.languages import (
    GRAMMARS,
    candidate_languages,
    find_language,
    parser_versions,
)

ADD: dict[Language, str] = {
    "python": "def add(a, b):\n    return a + b",
    "javascript": "const add = (a, b) => {\n  return a + b;\n};",
    "typescript": "function add(a: number, b: number): number {\n  return a + b;\n}",
    "java": "class Sum {\n  static int add(int a, int b) { return a + b; }\n}",
    "go": "func add(a, b int) int {\n\treturn a + b\n}",
    "rust": "fn add(a: i32, b: i32) -> i32 {\n    a + b\n}",
    "c": "#include <stdio.h>\nint add(int a, int b) {\n  return a + b;\n}",
    "cpp": "template <class T> T add(const T& a, const T& b) {\n  return a + b;\n}",
}
BROKEN: dict[Language, str] = {
    "python": "def add(a, b)\n    return a + b",
    "javascript": "function add(a, b) {\n  return a + b;",
    "typescript": "function add(a: number b: number) { return a + b; }",
    "java": "class Sum { int add(int a, int b) { return a + b } }",
    "go": "func add(a, b int) int {\n\treturn a +\n}",
    "rust": "fn add(a: i32, b: i32) -> i32 { a + }",
    "c": "int add(int a, int b) { return a + b; ",
    "cpp": "class Sum { int add(int a) { return a; } ",
}
TRIVIAL: dict[Language, tuple[str, ...]] = {
    "python": ("pass", "# later", "'later'"),
    "javascript": ("// later", "function f() {}", "'use strict';", ";", "class A { f() {} }"),
    "typescript": ("/* later */", "export class A { f(): void {} }", "import a from 'a';"),
    "java": ("// later", "import java.util.*;\npublic class Main { void f() { /* later */ } }"),
    "go": ("package main", 'package main\nimport "fmt"\nfunc main() {}'),
    "rust": ("// later", "use std::io;\nfn main() {}", "struct S {}\nimpl S { fn f(&self) {} }"),
    "c": ("#include <stdio.h>", "int main() { ; }", "/* later */"),
    "cpp": (
        "using namespace std;",
        "class A { public: A() {} };",
        "template <class T> void f() {}",
    ),
}
OTHERS = [language for language in LANGUAGES if language != "python"]


def fence(body: str, tag: str = "") -> str:
    return f"```{tag}\n{body}\n```"


def test_every_language_has_a_grammar_and_a_program() -> None:
    assert set(LANGUAGES) == set(get_args(Language)) == set(ADD)
    assert set(GRAMMARS) == set(OTHERS)


def test_parser_versions_name_the_parsers_of_the_accepted_languages() -> None:
    every = parser_versions(LANGUAGES)
    assert all(f"{grammar.package} 0." in every for grammar in GRAMMARS.values())
    assert "CPython 3." in every
    assert "tree-sitter 0." in every
    assert "tree-sitter" not in parser_versions(["python"])
    assert "tree-sitter-go" not in parser_versions(["python", "rust"])


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_program_is_found_by_the_callers_language_by_the_tag_and_by_detection(
    language: Language,
) -> None:
    code = ADD[language]
    for extracted in (
        extract(fence(code, "odd_tag"), "strict", language=language),
        extract(fence(code, language), "strict"),
        extract(fence(code), "strict"),
        extract(fence(code, "solution"), "strict"),
        extract(f"{fence('1')}\n{fence(code)}", "last_block"),
        extract(code, "raw_code"),
        extract(fence(code, language), "strict", languages=(language,)),
    ):
        assert (extracted.code, extracted.reason, extracted.language) == (code, "ok", language)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_text_that_does_not_parse_is_a_syntax_error(language: Language) -> None:
    for extracted in (
        extract(fence(BROKEN[language]), "strict", language=language),
        extract(fence(BROKEN[language], language), "strict"),
    ):
        assert (extracted.code, extracted.reason, extracted.language) == (
            None,
            "syntax_error",
            language,
        )
    assert extract(fence(BROKEN[language]), "strict").reason == "syntax_error"


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_program_that_does_nothing_is_trivial(language: Language) -> None:
    for code in TRIVIAL[language]:
        extracted = extract(fence(code), "strict", language=language)
        assert (extracted.code, extracted.reason) == (code, "trivial"), code


@pytest.mark.parametrize("language", OTHERS)
def test_the_rule_of_one_block_holds_for_every_language(language: Language) -> None:
    block = fence(ADD[language], language)
    assert extract(f"{block}\n{block}", "strict").reason == "multiple_blocks"
    assert extract(fence("", language), "strict").reason == "empty"
    assert extract(block.replace("\n", "\r\n", 1), "strict").reason == "no_block"
    assert extract(f"```{language} \n{ADD[language]}\n```", "strict").reason == "no_block"
    assert extract(block.removesuffix("```"), "strict").reason == "no_block"


@pytest.mark.parametrize(
    ("name", "language"),
    [
        *(("JS", "javascript"), ("golang", "go"), ("rs", "rust"), ("C++", "cpp"), ("cc", "cpp")),
        *(("Python 3", "python"), ("python3.11", "python"), ("PyPy 3-64", "python")),
        *(("C++17", "cpp"), ("GNU G++17 7.3.0", "cpp"), ("c99", "c"), ("GCC", "c")),
        *(("Node.js 18", "javascript"), ("Java (17)", "java"), ("Rust 2021", "rust")),
        *(("go1.22", "go"), ("TypeScript 5", "typescript")),
    ],
)
def test_a_language_is_found_by_its_common_names(name: str, language: Language) -> None:
    assert extract(fence(ADD[language]), "strict", language=name).language == language
    assert find_language(f" {name} ") == language


@pytest.mark.parametrize("name", ["Python 2.7", "python2", "PyPy 2", "Brainfuck", "7", "C#"])
def test_another_language_is_not_found(name: str) -> None:
    assert find_language(name) is None


def test_the_parsers_of_the_language_rule_include_the_grammar_of_newer_python() -> None:
    assert "tree-sitter-python 0." in parser_versions(["python"], "language")
    assert "tree-sitter-python" not in parser_versions(LANGUAGES)


@pytest.mark.parametrize("tag", ["c++", "C++", "c++17"])
def test_the_tag_of_cpp_opens_a_block_only_if_the_language_is_known(tag: str) -> None:
    response = fence(ADD["cpp"], tag)
    assert extract(response, "strict", language="cpp").code == ADD["cpp"]
    assert extract(response, "strict", language="C++").code == ADD["cpp"]
    assert extract(response, "strict", languages=("cpp",)).code == ADD["cpp"]
    assert extract(response, "strict").reason == "no_block"
    assert extract(response, "strict", language="c").reason == "no_block"
    assert extract(f"{response}\n{response}", "strict", language="cpp").reason == "multiple_blocks"


def test_a_python_program_is_accepted_under_any_tag() -> None:
    for tag in ("cpp", "java", "ruby", "output", "anything"):
        assert extract(fence(ADD["python"], tag), "strict").language == "python"


def test_the_language_of_a_tag_is_tried_before_python() -> None:
    both = "f(1)"
    assert extract(fence(both, "js"), "strict").language == "javascript"
    assert extract(fence(both), "strict").language == "python"


def test_a_tag_excludes_every_language_but_its_own_and_python() -> None:
    assert extract(fence(ADD["go"], "rust"), "strict").reason == "syntax_error"
    for tag in ("ruby", "kotlin"):
        assert extract(fence(ADD["java"], tag), "strict").reason == "unknown_language"
    assert extract(fence(ADD["java"], "output"), "strict").reason == "syntax_error"


def test_only_accepted_languages_are_tried() -> None:
    accepted: tuple[Language, ...] = ("java", "go")
    assert extract(fence(ADD["go"]), "strict", languages=accepted).language == "go"
    assert extract(fence(ADD["rust"]), "strict", languages=accepted).reason == "syntax_error"
    assert extract(fence(ADD["rust"], "rust"), "strict", languages=accepted).code is None
    assert extract(fence(ADD["python"]), "strict", languages=accepted).reason == "syntax_error"
    refused = extract(fence(ADD["rust"]), "strict", language="rust", languages=accepted)
    assert (refused.code, refused.reason) == (None, "unknown_language")


PROSE = (
    "The answer is seven.",
    "answer",
    "let x = 5",
    "hello;",
    "yes, no",
    "a -> b -> c",
    "key => value",
    "3 4\n1 2",
    "<p>Good</p>",
    "return value;",
    "import the module",
    "package main",
    "int x;",
    "use this;",
    "class",
    "SELECT a FROM b;",
    "body { color: red }",
    "type A struct{}",
)


@pytest.mark.parametrize("text", PROSE)
def test_detection_accepts_no_prose_as_a_program(text: str) -> None:
    extracted = extract(text, "raw_code")
    assert extracted.code is None or extracted.language == "python", extracted


def test_detection_tries_languages_in_order_and_accepts_only_definitions() -> None:
    tried = candidate_languages("", None, LANGUAGES)
    assert (tried.languages, tried.first_guess) == (LANGUAGES, 1)
    assert extract("fn f() { g(); }", "raw_code").language == "rust"
    assert extract("int f(int x) { return x; }", "raw_code").language == "java"
    assert extract("#define F\nint f(int x) { return x; }", "raw_code").language == "c"


@pytest.mark.parametrize("language", OTHERS)
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("(" * 60_000, "parser_limit"),
        ("{" * 30_000 + "}" * 30_000, "parser_limit"),
        ("\0", "syntax_error"),
        ("\ud800", "syntax_error"),
        ("x" * 5_000_000, "too_large"),
    ],
)
def test_hostile_texts_are_refused_by_rule(language: Language, body: str, reason: Reason) -> None:
    extracted = extract(fence(body), "strict", language=language)
    assert (extracted.code, extracted.reason) == (None, reason)


def test_the_depth_limit_holds_for_grammars() -> None:
    fits, deeper = (
        f"int f() {{ return {'-~' * (half)}1; }}" for half in (MAX_DEPTH // 2 - 20, MAX_DEPTH // 2)
    )
    assert extract(fits, "raw_code", language="java").reason == "ok"
    assert extract(deeper, "raw_code", language="java").reason == "parser_limit"


LAZY = """
import sys
from assay_models.extraction import extract
from assay_models.extraction.pool import ParserPool
extract("```python\\nx = f(1)\\n```", "strict")
early = [name for name in sys.modules if "tree_sitter" in name]
extract("```go\\nfunc f() { g() }\\n```", "strict")
late = sorted(name for name in sys.modules if name.startswith("tree_sitter_") and "." not in name)
print(early, late, "torch" in sys.modules, "transformers" in sys.modules)
"""


def test_grammars_are_imported_on_first_use_and_torch_never() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LAZY], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[] ['tree_sitter_go'] False False"
