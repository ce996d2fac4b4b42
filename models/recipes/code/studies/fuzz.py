"""Fuzzing of the code extraction: no response crashes it, and every extracted program parses.

python -m recipes.code.studies.fuzz --count 1000000 --seed 1
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
    Language,
    Reason,
    SyntaxChecker,
    extract,
)
from assay_models.extraction.grammars import tables
from assay_models.extraction.hidden_characters import remove_hidden
from assay_models.extraction.pool import ParserPool

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
HOSTILE_TEXTS = (
    "\0", "\ufeff", "\ud800", "\u200b", "\u202e", "\u2066", "\u00ad", "\ufdd0", "\r\n", "\t", "\f",
    "\\",
    "```", "````", "~~~", "`", "'", '"', '"""', "/*", "//", "R\"(", "r#\"", "<|im_end|>", "\u2028",
    "\U000e0041",
    "\x1b[31m", "\\\n", "#if", "\u01c5", "\ufb01",
)
REPEATED_TEXTS = (
    "(", "[", "{", "-", "~", "not ", "lambda:", "a.", "a(", "x,", "1+", "a<b<", "a?.", "a ? b : ",
    "template<", "'", "f'{", "@a\n", "else if (x) ", "x = ", "`${", "a::", "if x:\n ", "/*", "&",
    "=> ", "#a\n",
)
# fmt: on
MODES: tuple[Extraction, ...] = ("strict", "strict", "strict", "last_block", "raw_code")
NAMES = (*(None,) * 20, "", *LANGUAGES, "C++", "JS", "cobol")


@dataclass(slots=True)
class Tally:
    """The outcome: the count of each reason, the violations, and the slowest response."""

    reasons: Counter[Reason] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    slowest_seconds: float = 0.0
    slowest_seed: int = 0


def main() -> None:
    """Fuzz and print the rate.

    Raises:
        SystemExit: a response broke a rule.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=100_000, help="responses to try")
    parser.add_argument("--seed", type=int, default=1, help="of the first; each next adds one")
    arguments = parser.parse_args()
    parsers, tally, started = ParserPool(), Tally(), time.monotonic()
    columns = (
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:,.0f}/s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("fuzz", total=arguments.count, rate=0.0)
        for seed in range(arguments.seed, arguments.seed + arguments.count):
            _record_case(seed, parsers.check_syntax, tally)
            rate = (seed - arguments.seed + 1) / (time.monotonic() - started)
            progress.update(task, advance=1, rate=rate)
    parsers.close()
    print(f"{arguments.count:,} responses, {rate:,.0f} a second: {dict(tally.reasons)}")
    print(f"slowest: {tally.slowest_seconds:.3f} s, seed {tally.slowest_seed}")
    if tally.violations:
        raise SystemExit("\n".join(tally.violations))


def response(generator: random.Random) -> str:
    """Return a response of prose, fences, programs in every language, and texts that break
    parsers."""
    if generator.random() < 0.6:
        return "\n".join((_prose(generator), _block(generator), _prose(generator)))
    kinds = (_block, _block, _prose, _hostile_text)
    parts = [generator.choice(kinds)(generator) for _ in range(generator.randint(1, 4))]
    return generator.choice(("\n", "\n", "", " ")).join(parts)


def run_case(
    generator: random.Random, check: SyntaxChecker
) -> tuple[Sequence[Language], Extracted]:
    """Extract a response; return the accepted languages and the result, all drawn at random."""
    accepted = (
        LANGUAGES
        if generator.random() < 0.7
        else tuple(generator.sample(LANGUAGES, generator.randint(1, 4)))
    )
    text, mode, name = response(generator), generator.choice(MODES), generator.choice(NAMES)
    return accepted, extract(text, mode, language=name, languages=accepted, check=check)


def violations(accepted: Sequence[Language], found: Extracted) -> list[str]:
    """List the rules that a result breaks."""
    code, rules = found.code, {}
    rules["a reason without its program"] = (code is not None) == (
        found.reason in ("ok", "trivial")
    )
    if code is not None:
        rules["a language that is not accepted"] = found.language in accepted
        rules["more than the limit"] = len(code) <= MAX_CHARACTERS
        rules["white space around it"] = code == code.strip() != ""
        rules["hidden characters"] = remove_hidden(code) == (code, 0)
        rules["it does not parse"] = _parses(code, found.language)
    return [rule for rule, holds in rules.items() if not holds]


def _record_case(seed: int, check: SyntaxChecker, tally: Tally) -> None:
    generator = random.Random(seed)  # noqa: S311 nothing is secret here
    started = time.monotonic()
    accepted, found = run_case(generator, check)
    took = time.monotonic() - started
    if took > tally.slowest_seconds:
        tally.slowest_seconds, tally.slowest_seed = took, seed
    tally.reasons[found.reason] += 1
    tally.violations += [f"seed {seed}: {violation}" for violation in violations(accepted, found)]


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


def _block(generator: random.Random) -> str:
    end = generator.choice(("\n```", "\n```", "\n```", "```", "\n````", ""))
    return f"```{generator.choice(TAGS)}\n{_program(generator)}{end}"


def _program(generator: random.Random) -> str:
    text = "\n".join(generator.choices(CODE, k=generator.choice((1, 1, 1, 1, 1, 2, 5))))
    for _ in range(generator.choice((0, 0, 0, 0, 1, 1, 2, 4))):
        place = generator.randint(0, len(text))
        text = (
            text[:place]
            + generator.choice((_hostile_text, _repeated_text))(generator)
            + text[place + generator.randint(0, 2) :]
        )
    return text


def _repeated_text(generator: random.Random) -> str:
    motif = "".join(generator.choices(REPEATED_TEXTS, k=generator.choice((1, 1, 2, 3))))
    times = generator.choice((2, 2, 2, 5, 5, 20, 20, 200))
    closing = "".join(
        {"(": ")", "[": "]", "{": "}", "<": ">"}.get(sign, "") for sign in reversed(motif)
    )
    return motif * times + generator.choice(("", "1", "x")) + closing * generator.choice((0, times))


def _prose(generator: random.Random) -> str:
    return " ".join(generator.choices(PROSE, k=generator.randint(1, 4)))


def _hostile_text(generator: random.Random) -> str:
    return generator.choice(HOSTILE_TEXTS) * generator.choice((1, 1, 1, 2, 50))


if __name__ == "__main__":
    main()
