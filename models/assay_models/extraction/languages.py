"""The languages that a program may be in: their names, their tags and their parsers."""

import platform
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


def find_language(name: str) -> Language | None:
    """Return the language with that name, in any case (`C++`, `py3`), if it can be checked."""
    return _BY_NAME.get(name.strip().lower())


@dataclass(frozen=True, slots=True)
class Candidates:
    """The languages that a text is tried as, in order; the first that parses wins.

    Those from the index `first_guess` on are guesses: the text must hold a definition with a body
    (a function, a class), since a grammar alone takes a word of prose for a program.
    """

    languages: tuple[Language, ...]
    first_guess: int

    @property
    def declared(self) -> Language | None:
        """The first language, or None if there are guesses."""
        if self.languages and self.first_guess == len(self.languages):
            return self.languages[0]
        return None


def candidate_languages(
    tag: str, named: Language | None, accepted: Sequence[Language]
) -> Candidates:
    """Return the languages to try, given the caller's language, the tag of a fence, or neither.

    A language that the caller named is the only one. A tag of an accepted language is tried first,
    and Python after it, because under the paper's rule no tag keeps a program from being Python.
    After another known tag (`ruby`, `output`) only Python is tried. Without a tag, or with an
    unknown one, Python comes first by the paper's rule, and every other accepted language is a
    guess.
    """
    if named is not None:
        return Candidates((named,), 1)
    python: tuple[Language, ...] = ("python",) if "python" in accepted else ()
    tagged = find_language(tag)
    if tagged is not None and tagged in accepted:
        tried = (tagged, *(name for name in python if name != tagged))
        return Candidates(tried, len(tried))
    if tagged is not None or tag.lower() in _UNCHECKED_TAGS | _PLAIN_TEXT_TAGS:
        return Candidates(python, len(python))
    others = tuple(name for name in LANGUAGES if name in accepted and name != "python")
    return Candidates((*python, *others), len(python))


def names_unaccepted_language(tag: str, accepted: Sequence[Language]) -> bool:
    """Return whether a fence's tag names a language that is not accepted."""
    tagged = find_language(tag)
    return tag.lower() in _UNCHECKED_TAGS or (tagged is not None and tagged not in accepted)


def missing_grammars(languages: Sequence[Language]) -> list[str]:
    """List the packages that these languages need and that are not installed, importing none."""
    modules = {
        GRAMMARS[name].package: GRAMMARS[name].module for name in languages if name in GRAMMARS
    }
    if modules:
        modules["tree-sitter"] = "tree_sitter"
    return [package for package, module in modules.items() if find_spec(module) is None]


def parser_versions(languages: Sequence[Language]) -> str:
    """Return the parsers that decide on these languages, with their versions.

    A newer parser accepts programs that an older one refuses.
    """
    versions = [f"{platform.python_implementation()} {platform.python_version()}"]
    grammars = sorted({GRAMMARS[name].package for name in languages if name in GRAMMARS})
    packages = ("tree-sitter", *grammars) if grammars else ()
    versions += [f"{package} {version(package)}" for package in packages]
    return ", ".join(versions)
