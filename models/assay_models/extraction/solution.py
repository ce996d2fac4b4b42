"""The program of a response as a reader finds it, whatever the response wraps it in."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from assay_models.extraction.fences import MAX_BLOCKS, Block, find_blocks, outdent
from assay_models.extraction.hidden_characters import without_hidden_starts
from assay_models.extraction.languages import (
    Candidates,
    Language,
    candidate_languages,
    is_side_tag,
    names_unaccepted_language,
)
from assay_models.extraction.verdict import SyntaxChecker, SyntaxVerdict
from assay_models.thoughts import thoughts

VERSION = 1
"""The version of this rule: part of the fingerprint of a model that uses it."""
CHECKED_PROGRAMS = 4
"""The work for one response: the length of all parsed texts, in lengths of the longest program."""

ChosenBy = Literal["defines_asked", "only_program", "last_version", "whole_answer"]
"""The reason for one block among several: it defines most of the names that are asked for; it is
the only program, besides uses of it and tests; it is the last version of the same program; or there
is no block, and the whole answer is a program."""

_WRAPPED = re.compile(r"\s*<(answer|solution|code)>(.*)</\1>\s*", re.DOTALL | re.IGNORECASE)
_USE = re.compile(r"main|tests?|tests?_\w+|test[A-Z]\w*|Test\w*|\w+Tests?|Main|Program")


class Choice(NamedTuple):
    """The block that was taken, from 1, and the reason; without blocks both numbers are 0."""

    chosen_by: ChosenBy
    block: int
    blocks: int


@dataclass(frozen=True, slots=True)
class Found:
    """The text of a program and its verdict, or the reason why there is none."""

    code: str
    verdict: SyntaxVerdict
    choice: Choice | None = None


class _Program(NamedTuple):
    number: int
    block: Block
    verdict: SyntaxVerdict

    @property
    def is_trivial(self) -> bool:
        return self.verdict.reason == "trivial"

    @property
    def is_use(self) -> bool:
        """Whether it defines nothing but a main function or tests."""
        return all(_USE.fullmatch(name) for name in self.verdict.defines)


@dataclass(slots=True)
class _Parser:
    """The parsers with a bound on the work for one response; a text is parsed once."""

    check: SyntaxChecker
    named: Language | None
    languages: Sequence[Language]
    max_characters: int
    left: int = 0
    verdicts: dict[tuple[str, str], SyntaxVerdict] = field(default_factory=dict)

    def verdict(self, tag: str, body: str) -> SyntaxVerdict:
        key = tag, body
        if key not in self.verdicts:
            candidates = candidate_languages(tag, self.named, self.languages, "language")
            self.verdicts[key] = self._parse(body, candidates)
        return self.verdicts[key]

    def is_program(self, tag: str, body: str) -> bool:
        return self.verdict(tag, body).is_program

    def as_guess(self, text: str) -> SyntaxVerdict:
        """Return the verdict on a text without a fence, which must define something."""
        tried = candidate_languages("", self.named, self.languages, "language").languages
        return self._parse(text, Candidates(tried, 0, "language"))

    def _parse(self, body: str, candidates: Candidates) -> SyntaxVerdict:
        if not body:
            return SyntaxVerdict("empty")
        if len(body) > self.max_characters:
            return SyntaxVerdict("too_large")
        self.left -= len(body)
        if self.left < 0:
            return SyntaxVerdict("parser_limit")
        return self.check(body, candidates)


def find_solution(
    response: str,
    named: Language | None,
    languages: Sequence[Language],
    asked: frozenset[str],
    check: SyntaxChecker,
    max_characters: int,
) -> Found:
    """Return the program of a response.

    Line ends become newlines and thoughts are left out (see `thoughts`); blocks are found as
    a reader finds them (see `find_blocks`). A program parses by its language's own rule. Among
    several blocks the program is, in this order:

    1. the last of those that define most of the `asked` names;
    2. the only program, without uses of it, tests, output and commands of a shell;
    3. the last of several programs, if it defines a name of each of the others.

    A program that does something goes before one that does nothing, and a closed block before one
    that was left open. An answer without any block is a program if all of it is one that defines
    something, or prints.
    """
    text = without_hidden_starts(response.replace("\r\n", "\n").replace("\r", "\n"))
    spans, is_unclosed = thoughts(text)
    text = _outside(text, spans)
    parser = _Parser(check, named, languages, max_characters, CHECKED_PROGRAMS * max_characters)
    blocks = list(find_blocks(text, parser.is_program, max_characters))
    if not blocks:
        return _whole_answer(text, parser, is_unclosed)
    programs = [
        _Program(number, block, verdict)
        for number, block in enumerate(blocks, start=1)
        if (verdict := parser.verdict(block.tag, block.body)).is_program
    ]
    if len(blocks) == MAX_BLOCKS or not programs:
        return _no_program(blocks, parser)
    if len(blocks) == 1:
        return Found(blocks[0].body, programs[0].verdict)
    found = _defining(programs, asked) or _only(programs) or _last_version(programs)
    if found is None:
        return Found("", SyntaxVerdict("multiple_blocks"))
    program, chosen_by = found
    choice = Choice(chosen_by, program.number, len(blocks))
    return Found(program.block.body, program.verdict, choice)


def _outside(text: str, spans: Sequence[tuple[int, int]]) -> str:
    starts, ends = [start for start, _ in spans], [end for _, end in spans]
    kept = zip([0, *ends], [*starts, len(text)], strict=True)
    return "".join(text[start:end] for start, end in kept)


def _whole_answer(text: str, parser: _Parser, is_unclosed: bool) -> Found:
    wrapped = _WRAPPED.fullmatch(text)
    code = outdent(wrapped[2] if wrapped else text).strip()
    verdict = parser.as_guess(code)
    if verdict.is_program:
        return Found(code, verdict, Choice("whole_answer", 0, 0))
    return Found("", SyntaxVerdict("unclosed_thought" if is_unclosed else "no_block"))


def _no_program(blocks: Sequence[Block], parser: _Parser) -> Found:
    """Return the reason of the block that comes nearest to a program."""
    if len(blocks) == MAX_BLOCKS:
        return Found("", SyntaxVerdict("multiple_blocks"))
    verdicts = [_reason(block, parser) for block in blocks]
    for reason in ("parser_limit", "too_large", "syntax_error"):
        for verdict in verdicts:
            if verdict.reason == reason:
                return Found("", verdict)
    return Found("", verdicts[-1])


def _reason(block: Block, parser: _Parser) -> SyntaxVerdict:
    verdict = parser.verdict(block.tag, block.body)
    if verdict.reason == "syntax_error" and names_unaccepted_language(block.tag, parser.languages):
        return SyntaxVerdict("unknown_language")
    return verdict


def _defining(
    programs: Sequence[_Program], asked: frozenset[str]
) -> tuple[_Program, ChosenBy] | None:
    def rank(program: _Program) -> tuple[int, bool, bool, int]:
        count = len(asked.intersection(program.verdict.defines))
        return count, not program.is_trivial, program.block.is_closed, program.number

    best = max(programs, key=rank)
    return (best, "defines_asked") if rank(best)[0] else None


def _only(programs: Sequence[_Program]) -> tuple[_Program, ChosenBy] | None:
    left = [program for program in programs if not is_side_tag(program.block.tag)] or programs
    left = [program for program in left if not program.is_trivial] or left
    left = [program for program in left if not program.is_use] or left
    return (left[0], "only_program") if len(left) == 1 else None


def _last_version(programs: Sequence[_Program]) -> tuple[_Program, ChosenBy] | None:
    whole = [program for program in programs if not program.is_use and not program.is_trivial]
    whole = [program for program in whole if program.block.is_closed] or whole
    if not whole:
        return None
    names = set(whole[-1].verdict.defines)
    is_last = all(names.intersection(program.verdict.defines) for program in whole)
    return (whole[-1], "last_version") if is_last else None
