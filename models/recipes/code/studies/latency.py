"""Latency of a reward: a forward pass of the model against the unit tests of one program.

Both score the same candidates one after the other, in process, without a server. Tests run in the
sandbox of `code-exec@1` as they would be served, and once more in a bare process without a sandbox,
which is the practice of most trainers.
"""

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from assay_models.base import Item, Options, RewardModel
from assay_models.items import CodeExecItem, CodeItem
from recipes.code.command_line import build_parser, parse_arguments
from recipes.code.evaluate import fenced, fits_limit
from recipes.code.studies.candidates import Candidate, Task, read_tasks
from recipes.measure import Estimate, cluster_bootstrap, load_model
from recipes.plots import Line, save_lines

EXAMPLE = "python -m recipes.code.studies.latency --data ../shared/data --plot latency.svg"
SIZE = 8
TIMEOUT_SECONDS = 4
"""Time limit of a program in a bare process: the CPU seconds of a test in the sandbox."""

Case = tuple[Task, Candidate]


@dataclass(frozen=True, slots=True)
class Scorer:
    """A named way to score one candidate."""

    name: str
    score: Callable[[Task, Candidate], object]


def main() -> None:
    """Parse the command line, score the candidates alternately, print and draw the durations."""
    parser = build_parser(__doc__, EXAMPLE, "model", "plot")
    parser.add_argument("--candidates", type=int, default=200, help="how many (200)")
    arguments = parse_arguments(parser)
    card, model = load_model(arguments.model)
    _, execution = load_model("code-exec")
    scorers = (
        Scorer(card.id, lambda *case: _score(model, _code_item(*case))),
        Scorer("tests in the sandbox", lambda *case: _score(execution, _execution_item(*case))),
        Scorer("tests in a bare process", _run_in_bare_process),
    )
    cases = _select_cases(read_tasks(arguments.data, SIZE), arguments.candidates)
    fitting = [case for case in cases if fits_limit(model, _code_item(*case))]
    excluded = len(cases) - len(fitting)
    print(f"{len(fitting)} candidates, {excluded} more are too long for {card.id}")
    durations = measure_durations(scorers, fitting)
    _print_table(durations, card.id)
    if arguments.plot:
        shares = [(rank + 1) / len(fitting) for rank in range(len(fitting))]
        lines = [
            Line(name, [1e3 * duration for duration in sorted(seconds)], shares)
            for name, seconds in durations.items()
        ]
        titles = {"x_title": "milliseconds", "y_title": "share of candidates scored"}
        save_lines(arguments.plot, lines, **titles, base=10)


def measure_durations(scorers: Sequence[Scorer], cases: Sequence[Case]) -> dict[str, list[float]]:
    """Measure the seconds of each scorer on each case, alternating, under the same machine load."""
    durations: dict[str, list[float]] = {scorer.name: [] for scorer in scorers}
    for case in (cases[0], *track(cases, "candidates", transient=True)):
        for scorer in scorers:
            started = time.perf_counter()
            scorer.score(*case)
            durations[scorer.name].append(time.perf_counter() - started)
    return {name: seconds[1:] for name, seconds in durations.items()}  # the first warms up


def _print_table(durations: Mapping[str, Sequence[float]], model: str) -> None:
    for name, seconds in durations.items():
        median, high = np.percentile(seconds, [50, 95])
        ratio = _geometric_mean(np.log(np.array(seconds) / np.array(durations[model])))
        print(
            f"{name:24} p50 {1e3 * median:8.1f} ms  p95 {1e3 * high:8.1f} ms  "
            f"mean {1e3 * np.mean(seconds):8.1f} ms  of the model's, geometric mean: {ratio}"
        )


def _geometric_mean(logarithms: NDArray[np.float64]) -> Estimate:
    return cluster_bootstrap(
        lambda rows: float(np.exp(logarithms[rows].mean())),
        [str(row) for row in range(len(logarithms))],
    )


def _select_cases(tasks: Sequence[Task], count: int) -> list[Case]:
    """Select `count` candidates that have tests, spread over all problems."""
    cases = [(task, candidate) for task in tasks if task.tests for candidate in task.candidates]
    return cases[:: max(1, len(cases) // count)][:count]


def _code_item(task: Task, candidate: Candidate) -> CodeItem:
    return CodeItem(prompt=task.prompt, response=fenced(candidate.program))


def _execution_item(task: Task, candidate: Candidate) -> Item:
    return CodeExecItem(response=fenced(candidate.program), tests=task.tests or "")


def _score(model: RewardModel, item: Item) -> object:
    prepared = model.prepare([item], Options())
    raws: Any = model.predict(prepared.inputs) if prepared.inputs else []
    return model.finish(prepared, _await_if_awaitable(raws), Options())


def _await_if_awaitable(raws: Any) -> Any:
    async def wait() -> Any:
        return await raws

    return asyncio.run(wait()) if hasattr(raws, "__await__") else raws


def _run_in_bare_process(task: Task, candidate: Candidate) -> object:
    source = f"{candidate.program}\n\n{task.tests}\n"
    command = [sys.executable, "-I", "-c", source]
    try:
        return subprocess.run(  # noqa: S603 the data folder's own programs
            command, capture_output=True, timeout=TIMEOUT_SECONDS, check=False
        ).returncode
    except subprocess.TimeoutExpired:
        return None


if __name__ == "__main__":
    main()
