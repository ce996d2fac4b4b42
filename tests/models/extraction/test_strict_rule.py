"""The rule of the paper, held to verdicts that were recorded before other modes were added.

A verdict in `strict_verdicts.txt` is the digest of a generated response and of its program, the
language and whether there is a program. `python tests/models/extraction/test_strict_rule.py` prints
the verdicts of the present code.
"""

import random
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from assay_models.extraction import LANGUAGES, Extracted, Language, extract

RECORDED = Path(__file__).with_name("strict_verdicts.txt")
RESPONSES = 400
PYTHON: tuple[Language, ...] = ("python",)
# fmt: off
TAGS = (
    "", "", "python", "python", "py", "python3", "python3.11", "{python}", "python ", "c++",
    "C++17", "cpp", "java", "javascript", "js", "go", "rust", "bash", "output", "text", "Python",
)
BODIES = (
    "def add(a, b):\n    return a + b", "def add(a, b): pass", "def add(a, b):\n    ...", "pass",
    "# later", "return 1", "import os", "x = 1", "8", "print(add(1, 2))", "def add(a, b)\n    pass",
    'def add(a, b):\n    """Like\n    ```\n    add(1, 2)\n    ```\n    """\n    return a + b',
    "class Solution:\n    def add(self, a, b):\n        return a + b", "n = int(input())\nprint(n)",
    "function add(a, b) {\n  return a + b;\n}", "class A { int add(int a) { return a; } }",
    "#include <vector>\n#define rep(i, n) for (int i = 0; i < (n); i++)\n"
    "int main() {\n  rep(i, 3) { f(i); }\n}",
    "func add(a, b int) int {\n\treturn a + b\n}", "fn add(a: i32) -> i32 {\n    a\n}",
    "int add(int a) { return a; }", "pip install numpy", "x = '\u200bhidden'", "", " \t\n",
)
OPENINGS = ("```", "```", "```", "```", "````", "~~~", "   ```", "- ```", "Here: ```")
PROSE = (
    "", "", "Here it is.", "<think>\nMaybe.\n</think>", "<think>", "</think>", "1. First",
    "The fence ``` is three signs.", "It prints", "Usage:",
)
# fmt: on
NO_MARKS = str.maketrans("", "", "Here: -")


def responses() -> Iterator[tuple[str, tuple[Language, ...]]]:
    """Yield responses of zero to three blocks, with the languages that are accepted."""
    for seed in range(RESPONSES):
        draw = random.Random(seed)
        parts = [draw.choice(PROSE)]
        for _ in range(draw.choice((0, 1, 1, 1, 1, 2, 3))):
            opening, body = draw.choice(OPENINGS), draw.choice(BODIES)
            closing = opening.translate(NO_MARKS) if draw.random() < 0.9 else ""
            indent = opening[: len(opening) - len(opening.lstrip())]
            lines = "".join(f"{indent}{line}\n" for line in body.split("\n"))
            parts += [f"{opening}{draw.choice(TAGS)}\n{lines}{indent}{closing}", draw.choice(PROSE)]
        text = "\n".join(parts)
        if draw.random() < 0.1:
            text = text.replace("\n", draw.choice(("\r\n", "\r")))
        yield text, PYTHON if draw.random() < 0.5 else LANGUAGES


def verdict(response: str, extracted: Extracted) -> str:
    code, reason = extracted.code, extracted.reason
    digest = "-" if code is None else sha256(code.encode()).hexdigest()[:16]
    # `trivial` is a remark of ours about a program; the paper's rule knows only programs.
    stated = "program" if reason in ("ok", "trivial") else reason
    given = sha256(response.encode()).hexdigest()[:16]
    return f"{given} {digest} {stated} {extracted.language} {extracted.hidden}"


def verdicts() -> list[str]:
    return [
        verdict(response, extract(response, "strict", languages=languages))
        for response, languages in responses()
    ]


def test_strict_gives_the_recorded_verdict_and_program_for_every_response() -> None:
    recorded = RECORDED.read_text(encoding="ascii").splitlines()
    assert len(recorded) == RESPONSES
    assert verdicts() == recorded


def test_the_recorded_verdicts_hold_programs_and_several_reasons() -> None:
    reasons = {line.split()[2] for line in RECORDED.read_text(encoding="ascii").splitlines()}
    assert reasons == {"program", "no_block", "multiple_blocks", "syntax_error", "empty"} | {
        "unknown_language"
    }


if __name__ == "__main__":
    sys.stdout.write("\n".join([*verdicts(), ""]))
