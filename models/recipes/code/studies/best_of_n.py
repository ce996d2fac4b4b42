"""Best of n: of n candidates sampled from many models, the share of tasks whose selected
candidate passes all tests.

Every rule chooses among the same candidates; the curve is exact, over all subsets of each size.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from recipes.code.command_line import build_parser, parse_arguments
from recipes.code.data import Pair
from recipes.code.evaluate import score_programs
from recipes.code.studies.candidates import Task, read_tasks
from recipes.code.studies.likelihood import Likelihood
from recipes.measure import Estimate, cluster_bootstrap, load_model
from recipes.plots import Line, save_lines

EXAMPLE = "python -m recipes.code.studies.best_of_n --data ../shared/data --plot best-of-n.svg"
SIZE = 8
SIZES = (1, 2, 4, 8)

Scores = Sequence[Sequence[float]]
"""For each task one score a candidate, higher is better."""
Curve = dict[int, NDArray[np.float64]]
"""For each number of candidates the chance that the chosen one passes, one a task."""


def pass_probability(scores: Sequence[float], passed: Sequence[bool], size: int) -> float:
    """Return the chance that the best scored of `size` candidates, drawn from these, passes.

    Of candidates with equal scores one is chosen at random.
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


def pass_rate_curve(tasks: Sequence[Task], scores: Scores) -> Curve:
    """Return the chance that the chosen candidate passes, by number of candidates and task."""
    passed = [[candidate.passed for candidate in task.candidates] for task in tasks]
    return {
        size: np.array([pass_probability(*row, size) for row in zip(scores, passed, strict=True)])
        for size in SIZES
    }


def rule_scores(tasks: Sequence[Task]) -> dict[str, Scores]:
    """Return scores of the rules that need no model, and of the one that knows the answer."""
    lengths = [[float(len(candidate.program)) for candidate in task.candidates] for task in tasks]
    return {
        "random": [[0.0 for _ in row] for row in lengths],
        "longest": lengths,
        "shortest": [[-length for length in row] for row in lengths],
        "oracle": [[float(candidate.passed) for candidate in task.candidates] for task in tasks],
    }


def likelihood_scores(tasks: Sequence[Task]) -> Scores:
    """Score by the mean log-likelihood of a token under the unmodified base model."""
    wanted = [(task.prompt, candidate.program) for task in tasks for candidate in task.candidates]
    means = Likelihood.of_backbone().means(wanted)
    return [
        [means[task.prompt, candidate.program] for candidate in task.candidates] for task in tasks
    ]


def model_scores(tasks: Sequence[Task], reference: str, batch_size: int) -> Scores:
    """Score by a served model; a candidate that it cannot score comes last."""
    _, model = load_model(reference)
    pairs = [
        Pair(task.problem, task.prompt, candidate.program, candidate.program)
        for task in tasks
        for candidate in task.candidates
    ]
    scores = score_programs(model, pairs, batch_size)
    values = {key: -math.inf if score is None else score.score for key, score in scores.items()}
    return [
        [values[task.prompt, candidate.program] for candidate in task.candidates] for task in tasks
    ]


def mean_over_tasks(values: NDArray[np.float64], tasks: Sequence[Task]) -> Estimate:
    """Return a mean over tasks with a bootstrap interval over problems (tasks of one cluster)."""
    return cluster_bootstrap(
        lambda rows: float(values[rows].mean()), [task.problem for task in tasks]
    )


def print_table(tasks: Sequence[Task], curves: Mapping[str, Curve]) -> None:
    """Print each rule at each size, and the model's gain over every other rule."""
    for name, curve in curves.items():
        cells = "  ".join(f"{size}: {mean_over_tasks(curve[size], tasks)}" for size in SIZES)
        print(f"{name:11} {cells}", flush=True)
    for name in curves.keys() - {"model", "oracle"}:
        gain = mean_over_tasks(curves["model"][SIZE] - curves[name][SIZE], tasks)
        print(
            f"model over {name:11} at {SIZE}: {gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"
        )


def main() -> None:
    """Parse the command line, score, print the table and draw the curves."""
    parser = build_parser(__doc__, EXAMPLE, "model", "plot", "batch_size")
    arguments = parse_arguments(parser)
    tasks = read_tasks(arguments.data, SIZE)
    print(f"{len(tasks)} tasks, {SIZE} candidates each", flush=True)
    scores = rule_scores(tasks)
    scores["model"] = model_scores(tasks, arguments.model, arguments.batch_size)
    scores["likelihood"] = likelihood_scores(tasks)
    curves = {name: pass_rate_curve(tasks, rows) for name, rows in scores.items()}
    print_table(tasks, curves)
    if arguments.plot:
        lines = [
            Line(name, list(SIZES), [float(curve[size].mean()) for size in SIZES])
            for name, curve in curves.items()
        ]
        y_title = "share of tasks solved by the selected"
        save_lines(arguments.plot, lines, x_title="candidates", y_title=y_title)


if __name__ == "__main__":
    main()
