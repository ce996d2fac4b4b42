"""RM-Bench, public half of the code domain (arXiv 2410.16184), by the benchmark's own rule.

Each prompt has three right and three wrong answers: concise, detailed, detailed with markdown.
`easy` compares a fancier right answer with a plainer wrong one, `normal` answers of one style,
`hard` a plainer right answer with a fancier wrong one. A tie is wrong.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from assay_models.families.code.model import CodeModel
from assay_models.items import Message
from recipes.code.command_line import build_parser, parse_arguments
from recipes.measure import Estimate, cluster_bootstrap, load_model, read_jsonl

EXAMPLE = "python -m recipes.code.studies.rm_bench --data ../shared/data"
DIFFICULTIES = {
    "easy": np.tril(np.ones((3, 3)), -1),
    "normal": np.eye(3),
    "hard": np.triu(np.ones((3, 3)), 1),
}
"""The cells of the matrix of wins that count for each difficulty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkPrompt:
    """A prompt with its answers, plainest first."""

    task: str
    language: str
    prompt: str
    right: tuple[str, ...]
    wrong: tuple[str, ...]


Rule = Callable[[str, str], float]
"""The score of an answer to a prompt."""


def read_prompts(data: Path) -> list[BenchmarkPrompt]:
    """Read the public half of the code domain."""
    return [
        BenchmarkPrompt(
            task=str(row["task_id"]).partition("/")[2],
            language=row["language"],
            prompt=row["prompt"],
            right=tuple(row["chosen"]),
            wrong=tuple(row["rejected"]),
        )
        for row in read_jsonl(data / "rm-bench" / "code_public.jsonl.gz")
    ]


def win_matrix(prompt: BenchmarkPrompt, rule: Rule) -> NDArray[np.float64]:
    """Return whether right answer i scores above wrong answer j at (i, j); shape (3, 3)."""
    right = np.array([rule(prompt.prompt, answer) for answer in prompt.right])
    wrong = np.array([rule(prompt.prompt, answer) for answer in prompt.wrong])
    return (right[:, None] > wrong[None, :]).astype(np.float64)


def accuracy_table(
    prompts: Sequence[BenchmarkPrompt], wins: NDArray[np.float64]
) -> dict[str, Estimate]:
    """Return each difficulty's accuracy and their average; `wins` has shape (prompts, 3, 3)."""
    parts = {name: (wins * mask).sum((1, 2)) / mask.sum() for name, mask in DIFFICULTIES.items()}
    parts["average"] = np.mean(list(parts.values()), axis=0)
    clusters = [prompt.task for prompt in prompts]

    def mean(values: NDArray[np.float64]) -> Estimate:
        return cluster_bootstrap(lambda rows: float(values[rows].mean()), clusters)

    return {name: mean(values) for name, values in parts.items()}


def model_rule(model: CodeModel) -> Rule:
    """Return the model's logit of a whole answer, as a message of its own, cut where too long."""

    def logit(prompt: str, answer: str) -> float:
        messages = (Message(role="user", content=prompt), Message(role="assistant", content=answer))
        encoded = model.classifier.encode_chat(messages, "middle", escape_control_tokens=True)
        ((raw,),) = model.classifier.logits([encoded.input()])
        return float(raw)

    return logit


def main() -> None:
    """Parse the command line, score every answer, print the table."""
    parser = build_parser(__doc__, EXAMPLE, "model")
    arguments = parse_arguments(parser)
    prompts = read_prompts(arguments.data)
    card, model = load_model(arguments.model)
    if not isinstance(model, CodeModel):
        raise SystemExit(f"{card.id} is not of the family code")
    rules: Mapping[str, Rule] = {
        "longer": lambda prompt, answer: len(answer),
        "shorter": lambda prompt, answer: -len(answer),
        card.id: model_rule(model),
    }
    for name, rule in rules.items():
        wins = np.stack([win_matrix(row, rule) for row in track(prompts, name, transient=True)])
        _print_row(name, accuracy_table(prompts, wins))
    for language in sorted({prompt.language for prompt in prompts}):
        rows = [row for row, prompt in enumerate(prompts) if prompt.language == language]
        table = accuracy_table([prompts[row] for row in rows], wins[rows])
        _print_row(f"{card.id} {language}", table)


def _print_row(name: str, figures: Mapping[str, Estimate]) -> None:
    print(f"{name:20} " + "  ".join(f"{part} {figure}" for part, figure in figures.items()))


if __name__ == "__main__":
    main()
