"""A curriculum of hard prompts: a buffer, and prompts with candidates (ZPPO, arXiv 2606.18216).

Teacher and compressor are functions of the caller: nothing here generates text or sends a request.
Dropping groups in which all answers are wrong, as dynamic sampling does, would drop the prompts
that this is for.
"""

from __future__ import annotations

import math
import random
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

Compress = Callable[[str, str], str]
Source = Literal["plain", "bcq", "ncq"]
T = TypeVar("T")


@dataclass(frozen=True)
class BufferStats:
    """Counts of a buffer since it was made.

    Attributes:
        size: prompts that it holds.
        admitted: times a prompt came in; `graduated`: left because it was solved; `evicted`: left
            because there was no room.
    """

    size: int
    admitted: int
    graduated: int
    evicted: int


class PromptBuffer:
    """Hard prompts to train on again. It holds their ids alone.

    A prompt comes in when its accuracy is below `admit_below`, and leaves when that is at least
    `graduate_at`, or when a newer prompt needs the room: the one that came in first leaves first.

    Args:
        capacity: the largest number of prompts.
        admit_below: an accuracy in [0, 1].
        graduate_at: an accuracy in [0, 1], at least `admit_below`.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self, capacity: int = 10_000, admit_below: float = 0.5, graduate_at: float = 0.5
    ) -> None:
        if capacity < 1:
            raise ValueError("capacity must be at least 1")
        if not 0 <= admit_below <= graduate_at <= 1:
            raise ValueError("admit_below and graduate_at must be in [0, 1], in this order")
        self.capacity = capacity
        self.admit_below = admit_below
        self.graduate_at = graduate_at
        self._ids: OrderedDict[Hashable, None] = OrderedDict()
        self._admitted = self._graduated = self._evicted = 0

    def update(
        self, prompt_id: Hashable, plain_accuracy: float | None, source: Source = "plain"
    ) -> None:
        """Record a group's accuracy.

        Args:
            prompt_id: of the original prompt.
            plain_accuracy: the mean over the rollouts that have a verdict; None if none has, which
                changes nothing.
            source: `bcq` and `ncq` groups change nothing: their prompts show answers.

        Raises:
            ValueError: the accuracy is not in [0, 1].
        """
        if plain_accuracy is None or source != "plain":
            return
        if not 0 <= plain_accuracy <= 1:
            raise ValueError("plain_accuracy must be in [0, 1], or None")
        if prompt_id in self._ids:
            if plain_accuracy >= self.graduate_at:
                del self._ids[prompt_id]
                self._graduated += 1
        elif plain_accuracy < self.admit_below:
            self._ids[prompt_id] = None
            self._admitted += 1
            if len(self._ids) > self.capacity:
                self._ids.popitem(last=False)
                self._evicted += 1

    def sample(self, n: int, rng: random.Random | None = None) -> list[Hashable]:
        """Return n different prompts, uniformly; all in random order if there are fewer."""
        ids = list(self._ids)
        return (rng or random.Random()).sample(ids, min(n, len(ids)))  # noqa: S311

    def stats(self) -> BufferStats:
        """Return the counts."""
        return BufferStats(len(self._ids), self._admitted, self._graduated, self._evicted)

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, prompt_id: object) -> bool:
        return prompt_id in self._ids


def select_hard(
    prompts: Sequence[T],
    accuracy: Sequence[float | None],
    max_frac: float = 0.25,
    below: float = 0.5,
) -> list[T]:
    """Return the hardest prompts, by rising accuracy; those of equal accuracy keep their order.

    Args:
        prompts: of the batch.
        accuracy: of each prompt; None if it has no verdict, so that it is never selected.
        max_frac: the largest share of the batch that is returned.
        below: only prompts with a lower accuracy are hard.

    Raises:
        ValueError: lengths differ, or `max_frac` is not in [0, 1].
    """
    if len(prompts) != len(accuracy):
        raise ValueError("accuracy must have one value for each prompt")
    if not 0 <= max_frac <= 1:
        raise ValueError("max_frac must be in [0, 1]")
    hard = [(value, row) for row, value in enumerate(accuracy) if value is not None]
    hard = sorted((value, row) for value, row in hard if value < below)
    return [prompts[row] for _, row in hard[: math.floor(max_frac * len(prompts))]]


def build_bcq(
    question: str,
    teacher_correct: str,
    student_wrong: str,
    compress: Compress,
    rng: random.Random,
) -> tuple[str, Mapping[str, Any]]:
    """Return a prompt that shows a right and a wrong candidate, without saying which is which.

    Both pass through the same compressor, so that style and length do not show the right one. Their
    order is drawn from `rng`.

    Args:
        question: the original prompt.
        teacher_correct: a right answer of the teacher.
        student_wrong: a wrong answer of the policy.
        compress: called with the question and an answer; returns a short form of the answer.
        rng: draws the order.

    Returns:
        The prompt, and its data: `source`, the `positive` and `negative` texts, and
        `positive_place`, 0 or 1, for the grader and the logs.

    Raises:
        ValueError: the compressor returned no text, or the same for both.
    """
    positive, negative = (
        _compressed(compress, question, a) for a in (teacher_correct, student_wrong)
    )
    if positive == negative:
        raise ValueError("both candidates are the same text when compressed")
    place = rng.randrange(2)
    first, second = (positive, negative) if place == 0 else (negative, positive)
    prompt = (
        f"{question}\n\nTwo candidate solutions follow. One is right and one is wrong.\n\n"
        f"<candidate>\n{first}\n</candidate>\n\n<candidate>\n{second}\n</candidate>\n\n"
        "Solve the question yourself, using them as you see fit."
    )
    meta = {"positive": positive, "negative": negative, "positive_place": place}
    return prompt, {"source": "bcq", **meta}


def build_ncq(
    question: str, wrong: Sequence[tuple[str, str]], compress: Compress
) -> tuple[str, Mapping[str, Any]]:
    """Return a prompt that lists wrong answers as such, with their compressed solutions.

    Args:
        question: the original prompt.
        wrong: the final answer and the solution of each wrong rollout.
        compress: as for `build_bcq`.

    Returns:
        The prompt, and its data: `source`, and the different `wrong_answers` in order.

    Raises:
        ValueError: there is no wrong rollout, or the compressor returned no text.
    """
    if not wrong:
        raise ValueError("wrong must have at least one answer and its solution")
    answers = list(dict.fromkeys(answer for answer, _ in wrong))
    traces = [_compressed(compress, question, trace) for _, trace in wrong]
    listed = "\n".join(f"- {answer}" for answer in answers)
    shown = "\n\n".join(f"<wrong>\n{trace}\n</wrong>" for trace in traces)
    prompt = (
        f"{question}\n\nThese answers are wrong:\n{listed}\n\nThe attempts that led to them:\n\n"
        f"{shown}\n\nSolve the question without repeating their mistakes."
    )
    return prompt, {"source": "ncq", "wrong_answers": answers}


def _compressed(compress: Compress, question: str, answer: str) -> str:
    text = compress(question, answer)
    if not isinstance(text, str) or not text.strip():
        raise ValueError("compress must return a text that is not empty")
    return text.strip()
