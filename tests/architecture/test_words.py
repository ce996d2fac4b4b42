"""A check of names and prose: they use the field's terms and say things plainly."""

import ast
import io
import re
import subprocess
import tokenize
from collections.abc import Iterator
from pathlib import PurePath
from typing import NamedTuple

import pytest
from support.paths import ROOT

WORDS = {
    "tell": "say, return, report, record; for differences: distinguish",
    "tells": "says, returns, reports, records",
    "told": "said, returned, reported, recorded",
    "telling": "saying, reporting",
    "nobody": "no caller, no process: name who is meant",
    "whoever": "a caller that, a client that",
    "he": "it, the caller, the client",
    "him": "it, the caller, the client",
    "his": "its, the caller's",
    "kin": "prefix_key, shared prefix",
    "relatives": "rows with a shared prefix",
    "malus": "penalty",
    "crew": "process group",
    "standin": "fallback",
    "standins": "fallbacks",
    "follower": "subscriber",
    "followers": "subscribers",
    "waist": "core modules",
    "watcher": "evaluator",
    "news": "update, updates",
    "looks": "evaluations, polls",
    "guard": "middleware, gaming signals, drift penalty: name which",
    "guards": "middlewares, gaming signals, drift penalties: name which",
    "guarded": "catch_item_errors, checked",
    "judged": "classified, scored, checked",
    "judging": "classifying, scoring, checking",
    "patience": "max_seconds, timeout, ageing factor",
    "credit": "deficit, quantum",
    "credits": "deficits, quanta",
    "likelier": "more likely, more probable",
    "dearer": "more expensive",
}
PHRASES = {
    "none of it": "name what is meant",
    "a turn": "a chance to run; the event loop's next iteration",
    "the like": "name what is meant",
    "at most so many": "at most N",
    "its turn": "its place in the queue",
    "their turn": "their place in the queue",
    "turn of": "message of (a conversation), iteration of (a loop)",
    "a look": "an evaluation, a poll",
    "the look": "the appearance, the evaluation",
    "the account": "the report",
    "to judge": "to classify, to score, to check",
    "judges whether": "checks whether",
}
NAMES = {
    "turn": "message (of a conversation), iteration (of a loop), virtual_start (in a queue)",
    "turns": "messages, iterations",
    "look": "evaluation, poll",
    "marks": "evaluation points, markers, flags",
    "plan": "config",
    "account": "breakdown, report",
    "chosen": "selected, or what it is: systems, options",
}
"""Names that say too little. The same words are plain in prose, and as a part of a name."""

LIBRARY_NAMES = frozenset({"TypeGuard"})


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


OPENINGS = words("what who whose whoever how so where of those that it which why")
NO_VERBS = OPENINGS | words(
    "whether the a an these this all one each its in on from for with as by no not none true"
    " false when if every some many only two any at to into"
)
VERBS_IN_S = words("bias focus")

ALLOWED = {
    "clients/assay_client/rewards/query_rewriting.py": ("chosen", "a field of preference pairs"),
    "models/recipes/code": ("chosen", "a field of preference pairs"),
    "tests/clients/test_rewriting.py": ("chosen", "a field of preference pairs"),
    "tests/clients/trainers/test_pools.py": ("turns", "an attribute of SkyRL's environments"),
    "tests/models/code/test_weights_code.py": ("chosen", "a field of preference pairs"),
    "tests/models/classifier/test_private_weights.py": ("marks", "an argument of pytest.param"),
    "tests/models/code_exec/test_forgeries.py": ("marks", "an argument of pytest.param"),
    "tests/models/nli/test_weights.py": ("marks", "an argument of pytest.param"),
    "tests/models/recipes": ("chosen", "a field of preference pairs"),
    "benchmarks/large_qpp_request.py": ("looks", "a made-up query"),
    "docs/explanation/decisions/0012-batch-layouts.md": ("he", "an author's name"),
    "docs/explanation/decisions/0029-post-retrieval-prediction.md": ("he", "an author's name"),
    "models/assay_models/families/nli/label_mapping.py": ("his nobody", "example sentences"),
    "models/assay_models/families/nli/statements.py": ("he tell", "words of a response"),
    "models/assay_models/families/nli/verbs.py": ("he tell told", "the verbs themselves"),
    "models/assay_models/languages.py": ("he", "ISO 639 code of Hebrew"),
    "models/assay_models/families/qpp/predictors.py": ("he", "an author's name"),
    "models/assay_models/families/qpp/rewrites.py": ("he him his", "a list of stop words"),
    "models/recipes/bounds.py": ("nobody", "made-up texts"),
    "models/recipes/nli/baselines.py": ("nobody", "a list of negations"),
    "models/recipes/video_qpp/sanity.py": ("his", "example queries"),
    "models/recipes/video_qpp/studies/handmade.py": ("he him his", "a list of stop words"),
    "models/repository/retrieval-qpp/1/README.md": ("he", "an author's name"),
}
"""Words that a file, or the files of a folder, may hold, and the reason."""

PATTERNS = (
    "*.py",
    "*.md",
    "*.toml",
    "*.yaml",
    "*.yml",
    "*.sh",
    "*Dockerfile",
    "*Makefile",
    ".ci/*",
    ".dockerignore",
    ".importlinter",
    "deploy/*.json",
    "service/assay/dashboard/*.css",
    "service/assay/dashboard/*.html",
    "service/assay/dashboard/*.js",
    ":!service/assay/dashboard/vendor",
)
NOT_CHECKED = {"CHANGELOG.md"}


class Finding(NamedTuple):
    """A word or an opening to replace, and its place."""

    path: str
    line: int
    word: str
    advice: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.word!r}: write {self.advice}"


def tracked(*patterns: str) -> list[str]:
    command = ["git", "ls-files", "-z", "--", *patterns]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [path for path in listed.split("\0") if path and (ROOT / path).is_file()]


def parts_of(name: str) -> list[str]:
    """Return the words of an identifier, in lower case."""
    return [part.lower() for part in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)]


def check_prose(path: str, first_line: int, text: str) -> Iterator[Finding]:
    """Yield the words and phrases of a text that have a plainer term; inline code is skipped."""
    yield from check_words(path, first_line, re.sub(r"`[^`\n]*`", "", text))


def check_words(path: str, first_line: int, text: str) -> Iterator[Finding]:
    """Yield the words and phrases of a text that have a plainer term."""
    for match in re.finditer(r"[A-Za-z]+", text):
        line = first_line + text.count("\n", 0, match.start())
        for part in parts_of(match[0]):
            if part in WORDS:
                yield Finding(path, line, match[0], WORDS[part])
    for phrase, advice in PHRASES.items():
        pattern = r"\b" + r"\s+".join(phrase.split()) + r"\b"
        for match in re.finditer(pattern, text, re.IGNORECASE):
            yield Finding(path, first_line + text.count("\n", 0, match.start()), phrase, advice)


def check_markdown(path: str, text: str) -> Iterator[Finding]:
    """Yield findings in prose and headings, not in code blocks or link targets."""
    in_code = False
    kept = []
    for number, line in enumerate(text.split("\n"), 1):
        fence = line.lstrip().startswith(("```", "~~~"))
        in_code ^= fence
        kept.append("" if in_code or fence else re.sub(r"\]\([^)]*\)", "]", line))
        heading = re.match(r"#+\s+([A-Za-z]+)", kept[-1])
        if heading and heading[1].lower() in OPENINGS:
            yield Finding(path, number, heading[1], "a heading that a reader would search for")
    yield from check_prose(path, 1, "\n".join(kept))


def check_python(path: str, source: str) -> Iterator[Finding]:
    """Yield findings in docstrings, comments, names and, outside of tests, string literals."""
    tree = ast.parse(source)
    docstrings = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            expression = node.body[0] if node.body else None
            if ast.get_docstring(node) is not None and isinstance(expression, ast.Expr):
                docstrings.add(expression.value)
                yield from check_docstring(path, node, expression)
        yield from check_one(path, node)
    if "tests" not in PurePath(path).parts:
        yield from check_literals(path, tree, docstrings)
    yield from check_tokens(path, source)


def check_docstring(path: str, node: ast.AST, expression: ast.Expr) -> Iterator[Finding]:
    """Yield findings in a docstring, its first word included."""
    assert isinstance(expression.value, ast.Constant)
    text = str(expression.value.value)
    yield from check_prose(path, expression.lineno, text)
    first = re.match(r"\s*[`\"']?([A-Za-z]+)", text)
    if first is None:
        return
    word = first[1].lower()
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or is_attribute(node):
        if word in OPENINGS:
            yield Finding(path, expression.lineno, first[1], "a noun as the docstring's first word")
    elif word in NO_VERBS or is_inflected(word):
        advice = "a verb in the imperative as the docstring's first word"
        yield Finding(path, expression.lineno, first[1], advice)


def is_inflected(word: str) -> bool:
    """Return whether a word is a plural or a third person ("bytes", "returns")."""
    return word.endswith("s") and not word.endswith("ss") and word not in VERBS_IN_S


def is_attribute(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Return whether a function is a property or a fixture, whose docstring opens with a noun."""
    decorators = [
        decorator.func if isinstance(decorator, ast.Call) else decorator
        for decorator in node.decorator_list
    ]
    names = {getattr(decorator, "attr", getattr(decorator, "id", "")) for decorator in decorators}
    return bool(names & {"property", "cached_property", "fixture"})


def check_one(path: str, node: ast.AST) -> Iterator[Finding]:
    """Yield loop variables and parameters that are named `one`."""
    advice = "a noun: row, item, entry, path, token"
    if isinstance(node, ast.For | ast.AsyncFor | ast.comprehension):
        for target in ast.walk(node.target):
            if isinstance(target, ast.Name) and target.id == "one":
                yield Finding(path, target.lineno, "one", advice)
    if isinstance(node, ast.arg) and node.arg == "one":
        yield Finding(path, node.lineno, "one", advice)


def check_literals(path: str, tree: ast.AST, docstrings: set[ast.expr]) -> Iterator[Finding]:
    """Yield findings in string literals that are no docstrings."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or node in docstrings:
            continue
        if isinstance(node.value, str):
            yield from check_prose(path, node.lineno, node.value)


def check_tokens(path: str, source: str) -> Iterator[Finding]:
    """Yield findings in comments, and each name with a word to replace once."""
    names = set(LIBRARY_NAMES)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield from check_prose(path, token.start[0], token.string)
        elif token.type == tokenize.NAME and token.string not in names:
            names.add(token.string)
            for part in parts_of(token.string):
                if part in WORDS:
                    yield Finding(path, token.start[0], token.string, WORDS[part])
            if advice := NAMES.get(token.string.strip("_").lower()):
                yield Finding(path, token.start[0], token.string, advice)


def check_other(path: str, text: str) -> Iterator[Finding]:
    """Yield findings in a file of another format, its comments' openings included."""
    yield from check_words(path, 1, text)
    was_comment = False
    for number, line in enumerate(text.split("\n"), 1):
        comment = re.match(r"\s*(?:#|//|/\*)\s*([A-Z][a-z]+)?", line)
        if comment and not was_comment and comment[1] and comment[1].lower() in OPENINGS:
            yield Finding(path, number, comment[1], "a comment that opens with its subject")
        was_comment = comment is not None


def check(path: str) -> list[Finding]:
    checks = {".py": check_python, ".md": check_markdown}
    text = (ROOT / path).read_text(encoding="utf-8")
    return list(checks.get(PurePath(path).suffix, check_other)(path, text))


def exceptions_for(finding: Finding) -> set[tuple[str, str]]:
    """Return the exceptions that allow a finding, as (path, word)."""
    path, word = PurePath(finding.path), finding.word.lower()
    places = {str(place) for place in (path, *path.parents)}
    return {(place, word) for place in places & ALLOWED.keys() if word in words(ALLOWED[place][0])}


@pytest.fixture(scope="module")
def findings() -> list[Finding]:
    paths = [path for path in tracked(*PATTERNS) if path not in NOT_CHECKED]
    return [finding for path in paths for finding in check(path)]


def test_names_and_prose_use_plain_terms(findings: list[Finding]) -> None:
    left = [finding for finding in findings if not exceptions_for(finding)]
    assert not left, f"{len(left)} findings:\n" + "\n".join(map(str, left))


def test_every_exception_is_needed(findings: list[Finding]) -> None:
    needed = set().union(*map(exceptions_for, findings))
    assert needed == {(path, word) for path, (held, _) in ALLOWED.items() for word in words(held)}


@pytest.mark.parametrize(
    ("source", "line", "word"),
    [
        ('"""Text of a caller and his request."""\n', 1, "his"),
        ('"""Module."""\n\n# Nobody waits.\n', 3, "Nobody"),
        ("first = 1\nlast_follower = 2\n", 2, "last_follower"),
        ("first = 1\n_turns = 2\n", 2, "_turns"),
        ("class NewsReader:\n    pass\n", 1, "NewsReader"),
        ("first = 1\nraise ValueError(f'{first} was told')\n", 2, "told"),
        ('def act():\n    """Give others a\n    turn."""\n', 2, "a turn"),
        ('def act():\n    """The state."""\n', 2, "The"),
        ('def act():\n    """Returns the state."""\n', 2, "Returns"),
        ('async def act():\n    """Whether it runs."""\n', 2, "Whether"),
        ('class Act:\n    """What it does."""\n', 2, "What"),
        ('class Act:\n    @property\n    def b(self):\n        """How it is."""\n', 4, "How"),
        ('"""Where it is."""\n', 1, "Where"),
        ("for one in range(2):\n    pass\n", 1, "one"),
        ("rows = [one for _, one in pairs]\n", 1, "one"),
        ("act = lambda one: 1\n", 1, "one"),
    ],
)
def test_a_planted_word_in_a_module_is_found(source: str, line: int, word: str) -> None:
    (finding,) = check_python("service/planted.py", source)
    assert (finding.line, finding.word) == (line, word)
    assert str(finding).startswith(f"service/planted.py:{line}: {word!r}: write ")


@pytest.mark.parametrize(
    ("text", "line", "word"),
    [
        ("# A page\n\nA caller is told so.\n", 3, "told"),
        ("```\ntold\n```\n\nThis is none of\nit.\n", 5, "none of it"),
        ("# A page\n\n## What it costs\n", 3, "What"),
        ("| field |\n| --- |\n| whoever asks |\n", 3, "whoever"),
    ],
)
def test_a_planted_word_on_a_page_is_found(text: str, line: int, word: str) -> None:
    (finding,) = check_markdown("docs/planted.md", text)
    assert (finding.line, finding.word) == (line, word)


@pytest.mark.parametrize(
    ("path", "text", "line", "word"),
    [
        ("models/card.toml", 'name = "a"\nlimitations = ["not where it can be told"]\n', 2, "told"),
        ("compose.yaml", "a: 1\n# Nobody may log in.\n", 2, "Nobody"),
        ("Makefile", "a: ## Build it\n# What it builds.\n", 2, "What"),
        (".importlinter", "name = Guards know no service\n", 1, "Guards"),
        ("page/app.js", "const text = `${run} was told`;\n", 1, "told"),
        ("page/app.js", "const lastFollower = 1;\n", 1, "lastFollower"),
    ],
)
def test_a_planted_word_in_another_format_is_found(
    path: str, text: str, line: int, word: str
) -> None:
    (finding,) = check_other(path, text)
    assert (finding.line, finding.word) == (line, word)


def test_a_comment_may_continue_with_any_word() -> None:
    assert not list(check_other("compose.yaml", "# The cache keeps scores.\n# It is bounded.\n"))


def test_code_and_test_data_may_hold_any_word() -> None:
    page = "# A page\n\nThe field `told` is in [the page](told.md).\n\n```\nwhat is told\n```\n"
    assert not list(check_markdown("docs/planted.md", page))
    module = '"""Data."""\n\nTEXT = "nobody is told"\n'
    assert not list(check_python("tests/planted.py", module))
    assert len(list(check_python("service/planted.py", module))) == 2


def test_properties_and_fixtures_open_with_a_noun() -> None:
    source = (
        "@pytest.fixture(scope='module')\ndef state():\n"
        '    """The state."""\n'
        "class Act:\n    @property\n    def runs(self):\n"
        '        """Whether it runs."""\n'
    )
    assert not list(check_python("service/planted.py", source))
