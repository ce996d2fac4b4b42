"""The languages that a program may be in: their names, their tags, and whose parsers decide."""

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
"""Every language that can be checked, in the order in which detection tries them: Python by the
paper's rule, then those whose functions begin with a word of their own, C before C++, which takes
nearly all of it."""

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
_UNCHECKED = frozenset(
    {
        "bash", "cs", "csharp", "css", "dart", "elixir", "fortran", "haskell", "html", "jl",
        "json", "julia", "kotlin", "lua", "matlab", "objectivec", "perl", "php", "powershell",
        "ps1", "r", "rb", "ruby", "scala", "sh", "shell", "sql", "swift", "vb", "xml", "yaml",
        "yml", "zsh",
    }
)
_TEXTS = frozenset(
    {
        "console", "csv", "diff", "input", "latex", "log", "markdown", "md", "output", "plain",
        "plaintext", "pseudo", "pseudocode", "stdin", "stdout", "terminal", "tex", "text", "txt",
    }
)
# fmt: on


@dataclass(frozen=True, slots=True)
class Grammar:
    """Where the grammar of a language is: its package, and the functions that hand out tables.

    A program parses if one of the tables takes it (TypeScript with and without JSX).
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


def language_named(name: str) -> Language | None:
    """The language that people call so, in any case (`C++`, `py3`), if it can be checked."""
    return _BY_NAME.get(name.strip().lower())


@dataclass(frozen=True, slots=True)
class Candidates:
    """Which languages a text is tried as, the first that parses wins.

    Those from `guessed` on are guesses: each must hold a definition with a body (a function, a
    class), since a grammar alone takes a word of prose for a program.
    """

    languages: tuple[Language, ...]
    guessed: int

    @property
    def sure(self) -> Language | None:
        """The first of them, unless the others are guesses: then nobody knows."""
        return self.languages[0] if self.languages and self.guessed == len(self.languages) else None


def candidates(tag: str, named: Language | None, accepted: Sequence[Language]) -> Candidates:
    """What to try, where a caller named a language, a fence has a tag, or neither.

    A language that was named is the only one. A tag of an accepted language is tried first, and
    Python after it, because under the paper's rule no tag keeps a program from being Python. A
    tag of anything else (`ruby`, `output`) leaves Python alone. Without a tag, or with one that
    means nothing, Python comes first by the paper's rule, and every other accepted language is a
    guess.
    """
    if named is not None:
        return Candidates((named,), 1)
    python: tuple[Language, ...] = ("python",) if "python" in accepted else ()
    tagged = language_named(tag)
    if tagged is not None and tagged in accepted:
        tried = (tagged, *(name for name in python if name != tagged))
        return Candidates(tried, len(tried))
    if tagged is not None or tag.lower() in _UNCHECKED | _TEXTS:
        return Candidates(python, len(python))
    others = tuple(name for name in LANGUAGES if name in accepted and name != "python")
    return Candidates((*python, *others), len(python))


def is_unchecked(tag: str, accepted: Sequence[Language]) -> bool:
    """Whether a fence's tag names a language that is not accepted here."""
    tagged = language_named(tag)
    return tag.lower() in _UNCHECKED or (tagged is not None and tagged not in accepted)


def missing_grammars(languages: Sequence[Language]) -> list[str]:
    """The packages that these languages need and that are not installed. Nothing is imported."""
    modules = {
        GRAMMARS[name].package: GRAMMARS[name].module for name in languages if name in GRAMMARS
    }
    if modules:
        modules["tree-sitter"] = "tree_sitter"
    return [package for package, module in modules.items() if find_spec(module) is None]


def parser_versions(languages: Sequence[Language]) -> str:
    """Whose syntax decides what parses as these languages, with every version: a newer parser takes
    programs that an older one refuses."""
    versions = [f"{platform.python_implementation()} {platform.python_version()}"]
    grammars = sorted({GRAMMARS[name].package for name in languages if name in GRAMMARS})
    packages = ("tree-sitter", *grammars) if grammars else ()
    versions += [f"{package} {version(package)}" for package in packages]
    return ", ".join(versions)
