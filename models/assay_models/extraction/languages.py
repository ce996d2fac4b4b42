"""The languages that a program may be in: their names, their tags and their parsers."""

import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from typing import Literal

Language = Literal["python", "go", "rust", "javascript", "typescript", "java", "c", "cpp"]

LANGUAGES: tuple[Language, ...] = (
    *("python", "go", "rust", "javascript"),
    *("typescript", "java", "c", "cpp"),
)
"""Every language that can be checked, in the order in which detection tries them.

Python is first by the paper's rule, then come the languages whose functions begin with a keyword,
and C before C++, which parses nearly all of it.
"""

_NAMES: Mapping[Language, tuple[str, ...]] = {
    "python": ("python", "python3", "py", "py3"),
    "javascript": ("javascript", "js", "jsx", "node", "mjs", "ecmascript"),
    "typescript": ("typescript", "ts", "tsx"),
    "java": ("java",),
    "go": ("go", "golang"),
    "rust": ("rust", "rs"),
    "c": ("c", "h"),
    "cpp": ("cpp", "c++", "cc", "cxx", "hpp", "cplusplus"),
}
_BY_NAME = {name: language for language, names in _NAMES.items() for name in names}
# The paper's rule does not know these as tags.
_OTHER_NAMES: Mapping[str, Language] = {
    **dict.fromkeys(("cpython", "ipython", "pypy"), "python"),
    **dict.fromkeys(("node.js", "nodejs"), "javascript"),
    **dict.fromkeys(("g++", "clang++"), "cpp"),
    "gcc": "c",
}
_VERSION = re.compile(r"(.*?)[\s_-]*v?(\d[\w.\s-]*)?")
MAX_NAME = 64
"""The length up to which a text is read as a language's name."""
# fmt: off
_UNCHECKED_TAGS = frozenset(
    {
        "bash", "cs", "csharp", "css", "dart", "elixir", "fortran", "haskell", "html", "jl",
        "json", "julia", "kotlin", "lua", "matlab", "objectivec", "perl", "php", "powershell",
        "ps1", "r", "rb", "ruby", "scala", "sh", "shell", "sql", "swift", "vb", "xml", "yaml",
        "yml", "zsh",
    }
)
_PLAIN_TEXT_TAGS = frozenset(
    {
        "console", "csv", "diff", "input", "latex", "log", "markdown", "md", "output", "plain",
        "plaintext", "pseudo", "pseudocode", "stdin", "stdout", "terminal", "tex", "text", "txt",
    }
)
# fmt: on


SyntaxRule = Literal["paper", "language"]
"""The rule by which a text is a program: CodeScaler's, or the language's own."""


@dataclass(frozen=True, slots=True)
class Grammar:
    """The grammar of a language: its package, and the functions that return its tables.

    A program parses if it parses under one of the tables (TypeScript with and without JSX).
    """

    package: str
    tables: tuple[str, ...] = ("language",)

    @property
    def module(self) -> str:
        """The name to import the package by."""
        return self.package.replace("-", "_")


GRAMMARS: Mapping[Language, Grammar] = {
    "javascript": Grammar("tree-sitter-javascript"),
    "typescript": Grammar("tree-sitter-typescript", ("language_typescript", "language_tsx")),
    "java": Grammar("tree-sitter-java"),
    "go": Grammar("tree-sitter-go"),
    "rust": Grammar("tree-sitter-rust"),
    "c": Grammar("tree-sitter-c"),
    "cpp": Grammar("tree-sitter-cpp"),
}

PYTHON_GRAMMAR = "tree-sitter-python"


def find_language(name: str) -> Language | None:
    """Return the language with that name, if it can be checked.

    Case, blanks, `GNU` and a version do not matter: `C++17`, `Python 3.11`, `GNU G++17 7.3.0`.
    Python 2 is another language.
    """
    plain = " ".join(re.sub(r"[()]", " ", name[:MAX_NAME].lower()).split())
    if plain in _BY_NAME:
        return _BY_NAME[plain]
    versioned = _VERSION.fullmatch(plain.removeprefix("gnu").lstrip())
    base, release = versioned.groups() if versioned else (plain, None)
    language = _BY_NAME.get(base) or _OTHER_NAMES.get(base)
    return None if language == "python" and release and release[0] == "2" else language


def tag_of(info: str) -> str:
    """Return the tag of a fence by the text behind it: a language's name, or the first word.

    `Python 3`, `{.python}`, `python title="a"` and `C++17` are tags of their languages.
    """
    word, *_ = re.split(r"[\s{},:;]+", info[:MAX_NAME].strip(" \t{}.").lower(), maxsplit=1)
    return find_language(info) or find_language(word) or word


@dataclass(frozen=True, slots=True)
class Candidates:
    """The languages that a text is tried as, in order; the first that parses wins.

    Those from the index `first_guess` on are guesses: the text must hold a definition with a body
    (a function, a class; in Python a call of `print` will do), since a grammar alone takes a word
    of prose for a program.
    """

    languages: tuple[Language, ...]
    first_guess: int
    rule: SyntaxRule = "paper"

    @property
    def declared(self) -> Language | None:
        """The first language, or None if there are guesses."""
        if self.languages and self.first_guess == len(self.languages):
            return self.languages[0]
        return None


def candidate_languages(
    tag: str, named: Language | None, accepted: Sequence[Language], rule: SyntaxRule = "paper"
) -> Candidates:
    """Return the languages to try, given the caller's language, the tag of a fence, or neither.

    A language that the caller named is the only one. A tag of an accepted language is tried first,
    and Python after it, because under the paper's rule no tag keeps a program from being Python.
    After another known tag (`ruby`, `output`) only Python is tried. Without a tag, or with an
    unknown one, Python comes first by the paper's rule, and every other accepted language is a
    guess.
    """
    if named is not None:
        return Candidates((named,), 1, rule)
    python: tuple[Language, ...] = ("python",) if "python" in accepted else ()
    tagged = _BY_NAME.get(tag.lower())
    if tagged is not None and tagged in accepted:
        tried = (tagged, *(name for name in python if name != tagged))
        return Candidates(tried, len(tried), rule)
    if tagged is not None or tag.lower() in _UNCHECKED_TAGS | _PLAIN_TEXT_TAGS:
        return Candidates(python, len(python), rule)
    others = tuple(name for name in LANGUAGES if name in accepted and name != "python")
    return Candidates((*python, *others), len(python), rule)


def names_unaccepted_language(tag: str, accepted: Sequence[Language]) -> bool:
    """Return whether a fence's tag names a language that is not accepted."""
    tagged = _BY_NAME.get(tag.lower())
    return tag.lower() in _UNCHECKED_TAGS or (tagged is not None and tagged not in accepted)


def is_side_tag(tag: str) -> bool:
    """Return whether a tag is that of output, of a shell, or of a language without a parser."""
    return tag in _UNCHECKED_TAGS | _PLAIN_TEXT_TAGS


def missing_grammars(languages: Sequence[Language], rule: SyntaxRule = "paper") -> list[str]:
    """List the packages that these languages need and that are not installed, importing none."""
    packages = _grammar_packages(languages, rule)
    return [name for name in packages if find_spec(name.replace("-", "_")) is None]


def parser_versions(languages: Sequence[Language], rule: SyntaxRule = "paper") -> str:
    """Return the parsers that decide on these languages, with their versions.

    A newer parser accepts programs that an older one refuses.
    """
    versions = [f"{platform.python_implementation()} {platform.python_version()}"]
    versions += [f"{name} {version(name)}" for name in _grammar_packages(languages, rule)]
    return ", ".join(versions)


def _grammar_packages(languages: Sequence[Language], rule: SyntaxRule) -> list[str]:
    """List tree-sitter and the packages of the grammars; the paper's rule needs none for Python."""
    packages = sorted({GRAMMARS[name].package for name in languages if name in GRAMMARS})
    if rule == "language" and "python" in languages:
        packages.append(PYTHON_GRAMMAR)
    return ["tree-sitter", *packages] if packages else []
