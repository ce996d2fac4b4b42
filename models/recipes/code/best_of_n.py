"""Best of n: of n candidates sampled from many models, how often does the chosen one pass?

Every rule chooses among the same candidates; the curve is exact, over all subsets of each size.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from recipes.code.candidates import Task, read_tasks
from recipes.code.command import parsed, parser_of
from recipes.code.data import Pair
from recipes.code.evaluate import score_programs
from recipes.code.likelihood import Likelihood
from recipes.measure import Figure, cluster_bootstrap, load_embedded
from recipes.plots import Line, save_lines

EXAMPLE = "python -m recipes.code.best_of_n --data ../shared/data --plot best-of-n.svg"
SIZE = 8
SIZES = (1, 2, 4, 8)

Scores = Sequence[Sequence[float]]
"""For each task one score a candidate, higher is better."""


def passing(scores: Sequence[float], passed: Sequence[bool], size: int) -> float:
    """The chance that the best scored of `size` candidates, drawn from these, passes.

    Candidates of one score are chosen from by lot.
    """
    values = np.asarray(scores)
    right = np.asarray(passed, dtype=float)
    subsets = math.comb(len(values), size)
    share, above = 0.0, 0
    for value in sorted(set(values.tolist()), reverse=True):
        equal = values == value
        count = int(equal.sum())
        without = math.comb(len(values) - above, size)
        below = math.comb(len(values) - above - count, size)
        share += (without - below) / subsets * float(right[equal].mean())
        above += count
    return share


def curve(tasks: Sequence[Task], scores: Scores) -> dict[int, NDArray[np.float64]]:
    """For each number of candidates the chance that the chosen one passes, one a task."""
    passed = [[one.passed for one in task.candidates] for task in tasks]
    return {
        size: np.array([passing(*given, size) for given in zip(scores, passed, strict=True)])
        for size in SIZES
    }


def rules(tasks: Sequence[Task]) -> dict[str, Scores]:
    """The rules that need no model, and the one that knows the answer."""
    return {
        "random": [[0.0 for _ in task.candidates] for task in tasks],
        "longest": [[float(len(one.program)) for one in task.candidates] for task in tasks],
        "shortest": [[-float(len(one.program)) for one in task.candidates] for task in tasks],
        "oracle": [[float(one.passed) for one in task.candidates] for task in tasks],
    }


def by_likelihood(tasks: Sequence[Task]) -> Scores:
    """The mean log-likelihood of a token under the whole backbone."""
    wanted = [(task.prompt, one.program) for task in tasks for one in task.candidates]
    known = Likelihood.of_backbone().means(wanted)
    return [[known[task.prompt, one.program] for one in task.candidates] for task in tasks]


def by_model(tasks: Sequence[Task], reference: str, batch_size: int) -> Scores:
    """A served model's scores; what it cannot score comes last."""
    _, model = load_embedded(reference)
    pairs = [
        Pair(task.problem, task.prompt, one.program, one.program)
        for task in tasks
        for one in task.candidates
    ]
    known = score_programs(model, pairs, batch_size)
    found = {key: -math.inf if score is None else score.score for key, score in known.items()}
    return [[found[task.prompt, one.program] for one in task.candidates] for task in tasks]


def figure(values: NDArray[np.float64], tasks: Sequence[Task]) -> Figure:
    """A mean over tasks with its interval over problems."""
    return cluster_bootstrap(
        lambda rows: float(values[rows].mean()), [task.problem for task in tasks]
    )


def tell(tasks: Sequence[Task], curves: Mapping[str, Mapping[int, NDArray[np.float64]]]) -> None:
    """Print the table: each rule at each size, and what the model has over every other rule."""
    for name, found in curves.items():
        cells = "  ".join(f"{size}: {figure(found[size], tasks)}" for size in SIZES)
        print(f"{name:11} {cells}", flush=True)
    for name in curves.keys() - {"model", "oracle"}:
        gain = figure(curves["model"][SIZE] - curves[name][SIZE], tasks)
        print(
            f"model over {name:11} at {SIZE}: {gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"
        )


def main() -> None:
    """Parse the command line, score, print the table and draw the curves."""
    parser = parser_of(__doc__, EXAMPLE, "model", "plot", "batch_size")
    arguments = parsed(parser)
    tasks = read_tasks(arguments.data, SIZE)
    print(f"{len(tasks)} problems, {SIZE} candidates each", flush=True)
    scores = rules(tasks)
    scores["model"] = by_model(tasks, arguments.model, arguments.batch_size)
    scores["likelihood"] = by_likelihood(tasks)
    curves = {name: curve(tasks, given) for name, given in scores.items()}
    tell(tasks, curves)
    if arguments.plot:
        lines = [
            Line(name, list(SIZES), [float(found[size].mean()) for size in SIZES])
            for name, found in curves.items()
        ]
        save_lines(arguments.plot, lines, "candidates", "share of problems solved by the chosen")


if __name__ == "__main__":
    main()
