"""The duration of a thousand graded answers in one request, against the obvious loop.

The loop calls `math_verify.parse` on each reference and each response, and `verify` on the two, as
reward functions do. The request goes through the whole service, JSON included, with answers that
are in no cache. Both see the same texts, alternately. A group has one reference and several
responses; `--numbers` says how many references are plain numbers (in the test set of MATH it is
four in five). `--distinct` gives every item a reference of its own.

Example:
    python -m benchmarks.grade_answers --rounds 9
"""

import argparse
import asyncio
import random
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import httpx2
from math_verify import parse, verify

from assay.api.components import components_of
from assay.app import create_app
from assay.settings import Settings
from benchmarks.monitoring import mean_ratio

ITEMS = 1000
TIMEOUT_SECONDS = 600.0
STEPS = "We set up the equation, simplify both sides and check the result. " * 5
Shape = Callable[[int, int], tuple[str, str, str]]

NUMBERS: tuple[Shape, ...] = (
    lambda a, b: (f"{a * b}", f"{a * b}.0", f"{a * b + 1}"),
    lambda a, b: (
        rf"\frac{{{a}}}{{{b}}}",
        rf"\frac{{{2 * a}}}{{{2 * b}}}",
        rf"\frac{{{b}}}{{{a}}}",
    ),
    lambda a, b: (f"{a},{b:03}", f"{a}{b:03}", f"{a}{b:03}0"),
)
EXPRESSIONS: tuple[Shape, ...] = (
    lambda a, b: (rf"{a}\sqrt{{{b}}}", rf"\sqrt{{{a * a * b}}}", rf"{b}\sqrt{{{a}}}"),
    lambda a, b: (f"(x+{a})(x+{b})", f"x^2+{a + b}x+{a * b}", f"x^2+{a * b}x+{a + b}"),
    lambda a, b: (f"({a},{a + b}]", f"{a}<x\\le {a + b}", f"({a},{a + b})"),
    lambda a, b: (rf"\{{{a},{-b}\}}", f"{-b}, {a}", f"{a}, {b}"),
    lambda a, b: (f"y={a}x+{b}", f"y-{a}x={b}", f"y={b}x+{a}"),
)


class Duration(NamedTuple):
    """The seconds of the loop and of the request, and the share of equal verdicts."""

    loop: float
    request: float
    agreement: float


def main() -> None:
    """Measure alternately, print each round and the ratio with its interval."""
    arguments = _arguments()
    rounds = asyncio.run(_measure(arguments))
    ratio = mean_ratio([(row.loop, row.request) for row in rounds])
    agreement = sum(row.agreement for row in rounds) / len(rounds)
    print(
        f"{ITEMS} answers in one request: {ratio.value:.2f} times as fast as the loop "
        f"[{ratio.low:.2f}, {ratio.high:.2f}], {len(rounds)} rounds, {agreement:.3f} equal verdicts"
    )


def random_items(arguments: argparse.Namespace, seed: int) -> list[dict[str, Any]]:
    """Return items of random references, with right and wrong responses in equal parts."""
    generator = random.Random(seed)  # noqa: S311 made-up texts
    items: list[dict[str, Any]] = []
    while len(items) < ITEMS:
        shapes = NUMBERS if generator.random() < arguments.numbers else EXPRESSIONS
        gold, same, other = generator.choice(shapes)(
            generator.randint(2, 999), generator.randint(2, 999)
        )
        for _ in range(1 if arguments.distinct else arguments.group):
            answer = generator.choice((gold, same, other, other))
            response = rf"{STEPS}So the answer is $\boxed{{{answer}}}$."
            items.append({"response": response, "gold": gold, "answer_type": "math"})
    return items[:ITEMS]


async def _measure(arguments: argparse.Namespace) -> list[Duration]:
    app = create_app(Settings(models=("grade-answer",), runs="off", timeout=TIMEOUT_SECONDS))
    transport = httpx2.ASGITransport(app=app)
    async with app.router.lifespan_context(app):
        (served,) = components_of(app).service.models()
        if not await served.loaded():
            raise SystemExit(served.failure)
        client = httpx2.AsyncClient(
            transport=transport, base_url="http://assay", timeout=TIMEOUT_SECONDS
        )
        rounds: list[Duration] = []
        async with client:
            for number in range(arguments.rounds + 1):
                items = random_items(arguments, number)
                row = await _round(client, items)
                print(f"loop {row.loop:.2f} s, request {row.request:.2f} s", flush=True)
                if number:  # the first round warms up
                    rounds.append(row)
        return rounds


async def _round(client: httpx2.AsyncClient, items: list[dict[str, Any]]) -> Duration:
    started = time.perf_counter()
    expected = [_loop_verdict(item) for item in items]
    between = time.perf_counter()
    reply = await client.post("/v1/score", json={"model": "grade-answer", "items": items})
    ended = time.perf_counter()
    scores = [result["score"] for result in reply.raise_for_status().json()["results"]]
    agreed = sum(score == float(right) for score, right in zip(scores, expected, strict=True))
    return Duration(between - started, ended - between, agreed / len(items))


def _loop_verdict(item: dict[str, Any]) -> bool:
    return verify(parse(f"${item['gold']}$"), parse(item["response"])) is True


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.grade_answers",
        description="A thousand graded answers in one request, against the obvious loop.",
        epilog="example: python -m benchmarks.grade_answers --rounds 9",
    )
    parser.add_argument("--rounds", type=int, default=9, help="after the first, which warms up (9)")
    parser.add_argument("--group", type=int, default=8, help="responses for each reference (8)")
    parser.add_argument("--distinct", action="store_true", help="one response for each reference")
    parser.add_argument("--numbers", type=float, default=0.8, help="share of plain numbers (0.8)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
