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
from recipes.code.command import parsed, parser_of
from recipes.measure import Figure, cluster_bootstrap, load_embedded, read_jsonl

EXAMPLE = "python -m recipes.code.rm_bench --data ../shared/data"
PARTS = {
    "easy": np.tril(np.ones((3, 3)), -1),
    "normal": np.eye(3),
    "hard": np.triu(np.ones((3, 3)), 1),
}


@dataclass(frozen=True, slots=True)
class Case:
    """One prompt with its answers, plainest first."""

    task: str
    language: str
    prompt: str
    right: tuple[str, ...]
    wrong: tuple[str, ...]


Rule = Callable[[str, str], float]
"""The score of an answer to a prompt."""


def read_cases(data: Path) -> list[Case]:
    """The public half of the code domain."""
    return [
        Case(
            str(row["task_id"]).partition("/")[2],
            row["language"],
            row["prompt"],
            tuple(row["chosen"]),
            tuple(row["rejected"]),
        )
        for row in read_jsonl(data / "rm-bench" / "code_public.jsonl.gz")
    ]


def matrix(case: Case, rule: Rule) -> NDArray[np.float64]:
    """Entry (i, j): whether right answer i scores above wrong answer j; shape (3, 3)."""
    right = np.array([rule(case.prompt, answer) for answer in case.right])
    wrong = np.array([rule(case.prompt, answer) for answer in case.wrong])
    return (right[:, None] > wrong[None, :]).astype(np.float64)


def table(cases: Sequence[Case], wins: NDArray[np.float64]) -> dict[str, Figure]:
    """Each part's figure and the average of the three; `wins` has shape (cases, 3, 3)."""
    parts = {name: (wins * mask).sum((1, 2)) / mask.sum() for name, mask in PARTS.items()}
    parts["average"] = np.mean(list(parts.values()), axis=0)
    clusters = [case.task for case in cases]

    def figure(values: NDArray[np.float64]) -> Figure:
        return cluster_bootstrap(lambda rows: float(values[rows].mean()), clusters)

    return {name: figure(values) for name, values in parts.items()}


def rule_of(model: CodeModel) -> Rule:
    """The model's logit of a whole answer, as a turn of its own, cut where it is too long."""

    def logit(prompt: str, answer: str) -> float:
        turns = (Message(role="user", content=prompt), Message(role="assistant", content=answer))
        encoded = model.classifier.encode_chat(turns, "middle", thoughts="letters")
        ((raw,),) = model.classifier.logits([encoded.input()])
        return raw

    return logit


def main() -> None:
    """Parse the command line, score every answer, print the table."""
    parser = parser_of(__doc__, EXAMPLE, "model")
    arguments = parsed(parser)
    cases = read_cases(arguments.data)
    card, model = load_embedded(arguments.model)
    if not isinstance(model, CodeModel):
        raise SystemExit(f"{card.id} is not of the family code")
    rules: Mapping[str, Rule] = {
        "longer": lambda prompt, answer: len(answer),
        "shorter": lambda prompt, answer: -len(answer),
        card.id: rule_of(model),
    }
    for name, rule in rules.items():
        wins = np.stack([matrix(case, rule) for case in track(cases, name, transient=True)])
        _tell(name, table(cases, wins))
    for language in sorted({case.language for case in cases}):
        chosen = [place for place, case in enumerate(cases) if case.language == language]
        _tell(f"{card.id} {language}", table([cases[place] for place in chosen], wins[chosen]))


def _tell(name: str, figures: Mapping[str, Figure]) -> None:
    print(f"{name:20} " + "  ".join(f"{part} {figure}" for part, figure in figures.items()))


if __name__ == "__main__":
    main()
