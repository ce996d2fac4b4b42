"""How long a reward takes: a forward pass of the model against the unit tests of one program.

Both judge the same candidates one after the other, through the waist, without a server. Tests run
in the sandbox of `code-exec@1` as they would be served, and once more in a bare process without
walls, which is what most trainers do.
"""

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from assay_models.base import Item, Options, RewardModel
from assay_models.items import CodeExecItem, CodeItem
from recipes.code.candidates import Candidate, Task, read_tasks
from recipes.code.command import parsed, parser_of
from recipes.code.evaluate import can_be_scored, fenced
from recipes.measure import Figure, cluster_bootstrap, load_embedded
from recipes.plots import Line, save_lines

EXAMPLE = "python -m recipes.code.latency --data ../shared/data --plot latency.svg"
SIZE = 8
SECONDS = 4
"""What a program may take in a bare process: the CPU seconds of a test in the sandbox."""


@dataclass(frozen=True, slots=True)
class Judge:
    """A way to judge one candidate, and what it cost each time, in seconds."""

    name: str
    judge: Callable[[Task, Candidate], object]


def main() -> None:
    """Parse the command line, judge the candidates in turn, print and draw what it took."""
    parser = parser_of(__doc__, EXAMPLE, "model", "plot")
    parser.add_argument("--candidates", type=int, default=200, help="how many (200)")
    arguments = parsed(parser)
    card, model = load_embedded(arguments.model)
    _, execution = load_embedded("code-exec")
    judges = (
        Judge(card.id, lambda task, one: _score(model, _item(task, one))),
        Judge("tests in the sandbox", lambda task, one: _score(execution, _exercise(task, one))),
        Judge("tests in a bare process", lambda task, one: _bare(task, one)),
    )
    cases = _drawn(read_tasks(arguments.data, SIZE), arguments.candidates)
    able = [case for case in cases if can_be_scored(model, _item(*case))]
    print(f"{len(able)} candidates, {len(cases) - len(able)} more are too long for {card.id}")
    found = measured(judges, able)
    _tell(found, card.id)
    if arguments.plot:
        shares = [(place + 1) / len(able) for place in range(len(able))]
        lines = [
            Line(name, [1e3 * one for one in sorted(seconds)], shares)
            for name, seconds in found.items()
        ]
        save_lines(arguments.plot, lines, "milliseconds", "share of candidates judged", base=10)


def measured(
    judges: Sequence[Judge], cases: Sequence[tuple[Task, Candidate]]
) -> dict[str, list[float]]:
    """The seconds of each judge on each case, in turn, so that all see the same machine."""
    found: dict[str, list[float]] = {judge.name: [] for judge in judges}
    for case in (cases[0], *track(cases, "candidates", transient=True)):
        for judge in judges:
            began = time.perf_counter()
            judge.judge(*case)
            found[judge.name].append(time.perf_counter() - began)
    return {name: seconds[1:] for name, seconds in found.items()}  # the first warms up


def _tell(found: dict[str, list[float]], model: str) -> None:
    for name, seconds in found.items():
        middle, high = np.percentile(seconds, [50, 95])
        ratios = np.log(np.array(seconds) / np.array(found[model]))
        ratio = _geometric(ratios)
        print(
            f"{name:24} p50 {1e3 * middle:8.1f} ms  p95 {1e3 * high:8.1f} ms  "
            f"mean {1e3 * np.mean(seconds):8.1f} ms  of the model's, geometric mean: {ratio}"
        )


def _geometric(logarithms: NDArray[np.float64]) -> Figure:
    return cluster_bootstrap(
        lambda rows: float(np.exp(logarithms[rows].mean())),
        [str(place) for place in range(len(logarithms))],
    )


def _drawn(tasks: Sequence[Task], count: int) -> list[tuple[Task, Candidate]]:
    """As many candidates that have tests, spread over all problems."""
    cases = [(task, one) for task in tasks if task.tests for one in task.candidates]
    return cases[:: max(1, len(cases) // count)][:count]


def _item(task: Task, one: Candidate) -> CodeItem:
    return CodeItem(prompt=task.prompt, response=fenced(one.program))


def _exercise(task: Task, one: Candidate) -> Item:
    return CodeExecItem(response=fenced(one.program), tests=task.tests or "")


def _score(model: RewardModel, item: Item) -> object:
    prepared = model.prepare([item], Options())
    raws: Any = model.predict(prepared.inputs) if prepared.inputs else []
    return model.finish(prepared, _awaited(raws), Options())


def _awaited(raws: Any) -> Any:
    async def wait() -> Any:
        return await raws

    return asyncio.run(wait()) if hasattr(raws, "__await__") else raws


def _bare(task: Task, one: Candidate) -> object:
    source = f"{one.program}\n\n{task.tests}\n"
    command = [sys.executable, "-I", "-c", source]
    try:
        return subprocess.run(  # noqa: S603 the data folder's own programs
            command, capture_output=True, timeout=SECONDS, check=False
        ).returncode
    except subprocess.TimeoutExpired:
        return None


if __name__ == "__main__":
    main()
