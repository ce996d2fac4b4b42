"""Parsing of the pages: fenced code blocks, and the directives in the comments before them.

A directive is an HTML comment on a line of its own, directly before a block:

- `<!-- not run: REASON -->`: the block is not executed.
- `<!-- tolerance: 0.05 -->`: the relative tolerance of numbers in the block's output.
- `<!-- file: PATH -->`: the block is the text of a file that later blocks of the page read.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from support.paths import DOCS, ROOT

OUTPUT_LANGUAGES = frozenset(("json", "jsonl", "text"))
EXECUTED_LANGUAGES = frozenset(("console", "python"))
DIRECTIVES = frozenset(("not run", "tolerance", "file"))
DIRECTIVE = re.compile(r"<!-- ([a-z ]+): (.+) -->")
FENCE = re.compile(r"```(\w*)")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    `is_adjacent`: nothing but blank lines stands between this block and the one before it.
    """

    page: Path
    line: int
    language: str
    lines: tuple[str, ...]
    directives: dict[str, str] = field(default_factory=dict)
    is_adjacent: bool = False

    @property
    def text(self) -> str:
        """The lines of the block, each with its end."""
        return "".join(f"{line}\n" for line in self.lines)

    @property
    def place(self) -> str:
        """The page and line, for messages."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def reason(self) -> str | None:
        """The reason for which the block is not run; None where it is run."""
        return self.directives.get("not run")

    @property
    def is_output(self) -> bool:
        """Whether the block may be the output of the block before it."""
        return self.is_adjacent and self.language in OUTPUT_LANGUAGES


def pages() -> list[Path]:
    """Return the pages whose blocks are executed: the documentation, and other READMEs."""
    return documentation() + other_readmes()


def documentation() -> list[Path]:
    """Return the pages under `docs` but the decision records and the log, and two of the root."""
    records = DOCS / "explanation" / "decisions"
    written = [path for path in sorted(DOCS.rglob("*.md")) if not path.is_relative_to(records)]
    named = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    return named + [path for path in written if path != DOCS / "LOG.md"]


def other_readmes() -> list[Path]:
    """Return the READMEs of recipes, models and examples."""
    folders = ("models/recipes", "models/repository", "clients/examples")
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("README.md"))]


def blocks_of(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    return list(_blocks(page, page.read_text(encoding="utf-8").splitlines()))


def _blocks(page: Path, lines: list[str]) -> Iterator[Block]:
    directives: dict[str, str] = {}
    adjacent = False
    number = 0
    while number < len(lines):
        line = lines[number]
        opening, directive = FENCE.fullmatch(line), DIRECTIVE.fullmatch(line)
        if opening is not None:
            end = lines.index("```", number + 1)
            body = tuple(lines[number + 1 : end])
            yield Block(page, number + 1, opening[1], body, directives, adjacent)
            directives, adjacent, number = {}, True, end
        elif directive is not None and directive[1] in DIRECTIVES:
            directives = {**directives, directive[1]: directive[2]}
        elif line.strip():
            assert not directives, f"{page}:{number + 1}: a directive without a block"
            adjacent = False
        number += 1


def prose_of(page: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a page outside of fenced blocks and tables, with their numbers."""
    fenced = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("```"):
            fenced = not fenced
        elif not fenced and not line.startswith("|"):
            yield number, line
