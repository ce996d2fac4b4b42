"""Responses made to break the extraction: nothing crashes, and what comes out parses.

python -m recipes.code.fuzz --count 1000000 --seed 1
"""

import argparse
import ast
import random
import sys
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import tree_sitter
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from assay_models.extraction import (
    LANGUAGES,
    MAX_CHARACTERS,
    Extracted,
    Extraction,
    Judge,
    Language,
    Reason,
    extract,
)
from assay_models.extraction.grammars import tables
from assay_models.extraction.pool import Parsers
from assay_models.extraction.visible import visible

# fmt: off
TAGS = (
    *("",) * 12, "python", "py", "javascript", "js", "typescript", "tsx", "java", "c", "cpp", "c++",
    "C++17",
    "go", "golang", "rust", "rs", "ruby", "output", "text", "solution", "C#", "python3.11",
    "{python}",
    "python ", "\u0665",
)
CODE = (
    "def f(x):\n    return x + 1", "pass", "# later", "x = 1", "class A:\n    pass",
    "import re\nprint(re.sub('a', 'b', s))", "const f = (x) => { return x + 1; };",
    "function f(x) { return x; }", "interface A { x: number }", "let y: string = 'a';",
    "class A { int f(int x) { return x + 1; } }", "public class Main { }",
    "#include <vector>\nint main() { return 0; }", "template <class T> T f(T x) { return x; }",
    "package main\nfunc main() { f() }", "fn f(x: i32) -> i32 { x + 1 }", "#define A 1",
    "use std::io;",
    "auto f = [](int x) { return x; };", "`${f(1)}`", "f'{x!r:>{width}}'",
    "match x:\n    case 1: pass",
)
PROSE = (
    "Here is the program.", "It returns the sum; see below.", "<think>", "</think>", "let x = 5",
    "The fence ``` is three signs.", "1. First\n2. Second", "naïve café 数 😀", "a < b > c",
)
NASTIES = (
    "\0", "\ufeff", "\ud800", "\u200b", "\u202e", "\u2066", "\u00ad", "\ufdd0", "\r\n", "\t", "\f",
    "\\",
    "```", "````", "~~~", "`", "'", '"', '"""', "/*", "//", "R\"(", "r#\"", "<|im_end|>", "\u2028",
    "\U000e0041",
    "\x1b[31m", "\\\n", "#if", "\u01c5", "\ufb01",
)
CHAINS = (
    "(", "[", "{", "-", "~", "not ", "lambda:", "a.", "a(", "x,", "1+", "a<b<", "a?.", "a ? b : ",
    "template<", "'", "f'{", "@a\n", "else if (x) ", "x = ", "`${", "a::", "if x:\n ", "/*", "&",
    "=> ", "#a\n",
)
# fmt: on
MODES: tuple[Extraction, ...] = ("strict", "strict", "strict", "last_block", "raw_code")
NAMES = (*(None,) * 20, "", *LANGUAGES, "C++", "JS", "cobol")


@dataclass(slots=True)
class Tally:
    """What was found: how often each reason, what broke the rule, which response took longest."""

    reasons: Counter[Reason] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    slowest: float = 0.0
    slowest_at: int = 0


def main() -> None:
    """Fuzz, with a rate; the exit status is 1 if a response broke the rule."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=100_000, help="responses to try")
    parser.add_argument("--seed", type=int, default=1, help="of the first; each next adds one")
    arguments = parser.parse_args()
    parsers, tally, begun = Parsers(), Tally(), time.monotonic()
    columns = (
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:,.0f}/s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("fuzz", total=arguments.count, rate=0.0)
        for seed in range(arguments.seed, arguments.seed + arguments.count):
            _try(seed, parsers.judge, tally)
            rate = (seed - arguments.seed + 1) / (time.monotonic() - begun)
            progress.update(task, advance=1, rate=rate)
    parsers.close()
    print(f"{arguments.count:,} responses, {rate:,.0f} a second: {dict(tally.reasons)}")
    print(f"slowest: {tally.slowest:.3f} s, seed {tally.slowest_at}")
    if tally.broken:
        raise SystemExit("\n".join(tally.broken))


def response(chance: random.Random) -> str:
    """One response: prose, fences, programs in every language, and what breaks parsers."""
    if chance.random() < 0.6:
        return "\n".join((_prose(chance), _block(chance), _prose(chance)))
    kinds = (_block, _block, _prose, _nasty)
    parts = [chance.choice(kinds)(chance) for _ in range(chance.randint(1, 4))]
    return chance.choice(("\n", "\n", "", " ")).join(parts)


def tried(chance: random.Random, judge: Judge) -> tuple[Sequence[Language], Extracted]:
    """The accepted languages and what came of one response, all drawn by `chance`."""
    accepted = (
        LANGUAGES
        if chance.random() < 0.7
        else tuple(chance.sample(LANGUAGES, chance.randint(1, 4)))
    )
    text, mode, name = response(chance), chance.choice(MODES), chance.choice(NAMES)
    return accepted, extract(text, mode, name, accepted, judge)


def faults(accepted: Sequence[Language], found: Extracted) -> list[str]:
    """The rules that a result breaks."""
    code, rules = found.code, {}
    rules["a reason without its program"] = (code is not None) == (
        found.reason in ("ok", "trivial")
    )
    if code is not None:
        rules["a language that is not accepted"] = found.language in accepted
        rules["more than the limit"] = len(code) <= MAX_CHARACTERS
        rules["white space around it"] = code == code.strip() != ""
        rules["hidden characters"] = visible(code) == (code, 0)
        rules["it does not parse"] = _parses(code, found.language)
    return [rule for rule, holds in rules.items() if not holds]


def _try(seed: int, judge: Judge, tally: Tally) -> None:
    chance = random.Random(seed)  # noqa: S311 nothing is secret here
    begun = time.monotonic()
    accepted, found = tried(chance, judge)
    took = time.monotonic() - begun
    if took > tally.slowest:
        tally.slowest, tally.slowest_at = took, seed
    tally.reasons[found.reason] += 1
    tally.broken += [f"seed {seed}: {fault}" for fault in faults(accepted, found)]


def _parses(code: str, language: Language | None) -> bool:
    if language is None:
        return False
    if language != "python":
        source = f"{code}\n".encode()
        trees = (tree_sitter.Parser(table).parse(source) for table in tables(language))
        return any(not tree.root_node.has_error for tree in trees)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ast.parse(code)
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            return False
    return True


def _block(chance: random.Random) -> str:
    end = chance.choice(("\n```", "\n```", "\n```", "```", "\n````", ""))
    return f"```{chance.choice(TAGS)}\n{_program(chance)}{end}"


def _program(chance: random.Random) -> str:
    text = "\n".join(chance.choices(CODE, k=chance.choice((1, 1, 1, 1, 1, 2, 5))))
    for _ in range(chance.choice((0, 0, 0, 0, 1, 1, 2, 4))):
        place = chance.randint(0, len(text))
        text = (
            text[:place]
            + chance.choice((_nasty, _chain))(chance)
            + text[place + chance.randint(0, 2) :]
        )
    return text


def _chain(chance: random.Random) -> str:
    motif = "".join(chance.choices(CHAINS, k=chance.choice((1, 1, 2, 3))))
    times = chance.choice((2, 2, 2, 5, 5, 20, 20, 200))
    closing = "".join(
        {"(": ")", "[": "]", "{": "}", "<": ">"}.get(sign, "") for sign in reversed(motif)
    )
    return motif * times + chance.choice(("", "1", "x")) + closing * chance.choice((0, times))


def _prose(chance: random.Random) -> str:
    return " ".join(chance.choices(PROSE, k=chance.randint(1, 4)))


def _nasty(chance: random.Random) -> str:
    return chance.choice(NASTIES) * chance.choice((1, 1, 1, 2, 50))


if __name__ == "__main__":
    main()
