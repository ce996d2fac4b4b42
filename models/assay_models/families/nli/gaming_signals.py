"""Gaming signals: measures of an answer's text that show a policy gaming a checker.

They need no forward pass. The signals are those of the cascade in "What makes a medical checker
trainable?" (arXiv 2605.25988): short answers, answers without a search, another language. All are
reported beside the score, and none is part of it.
"""

import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from assay_models.extraction.hidden_characters import remove_hidden
from assay_models.preemption import preemption_point

# The paper subtracts 0.3 from answers shorter than this.
MIN_CHARACTERS = 50
# A run of this many words is not written twice by chance.
COPIED_RUN_WORDS = 8
REPEATED_RUN_WORDS = 4
# The words of each text that are read.
MAX_WORDS = 50_000
COPIED_THRESHOLD = 0.8
REPETITION_THRESHOLD = 0.3
UNJUDGED_THRESHOLD = 0.1
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True, slots=True)
class GamingSignals:
    """Measures of one answer beside its evidence.

    Attributes:
        characters: of the answer; None where only its claims are known.
        overlap: the share of the claims' words, each counted once, that the evidence has too.
        copied: the share of the answer's words that lie in runs of eight or more that are in the
            evidence word for word.
        repetition: the share of the answer's runs of four words that it had before.
        unjudged: the share of the answer's letters that lie in no claim; None where only its claims
            are known.
    """

    characters: int | None
    overlap: float
    copied: float
    repetition: float
    unjudged: float | None = None

    def flags(self) -> tuple[str, ...]:
        """Return the flags of conspicuous measures.

        They are `short_answer`, `copied`, `repetition` and `unjudged_text`.
        """
        conditions = {
            "short_answer": self.characters is not None and self.characters < MIN_CHARACTERS,
            "copied": self.copied >= COPIED_THRESHOLD,
            "repetition": self.repetition >= REPETITION_THRESHOLD,
            "unjudged_text": (self.unjudged or 0.0) >= UNJUDGED_THRESHOLD,
        }
        return tuple(name for name, holds in conditions.items() if holds)

    def to_dict(self) -> dict[str, Any]:
        """Return the measures by name, as in `details.gaming_signals`."""
        return asdict(self)


def measure_gaming_signals(
    answer: str | None,
    claims: Sequence[str],
    evidence: Iterable[str],
    *,
    unjudged: float | None = None,
) -> GamingSignals:
    """Measure an answer and its claims, with words compared without regard to case.

    Args:
        answer: the response; None where only its claims are known, which then stand for it.
        claims: the claims of it that are classified.
        evidence: the passages.
        unjudged: the share of the answer's letters that lie in no claim.
    """
    words = _words("\n".join(claims) if answer is None else answer)
    claimed = {word for claim in claims for word in _words(claim)}
    runs = set(_runs(words, COPIED_RUN_WORDS))
    supported: set[str] = set()
    shared: set[tuple[str, ...]] = set()
    for passage in evidence:
        preemption_point()
        passage_words = _words(passage)
        supported |= claimed.intersection(passage_words)
        shared.update(run for run in _runs(passage_words, COPIED_RUN_WORDS) if run in runs)
    return GamingSignals(
        characters=None if answer is None else len(answer),
        overlap=len(supported) / len(claimed) if claimed else 0.0,
        copied=_covered(words, shared) / len(words) if words else 0.0,
        repetition=_repeated(words),
        unjudged=unjudged,
    )


def has_hidden_characters(texts: Iterable[str]) -> bool:
    """Return whether a text holds characters without a glyph, or with a change of direction."""
    return any(remove_hidden(text)[1] for text in texts)


def _words(text: str) -> list[str]:
    matches = _WORD.finditer(text.casefold())
    return [word.group() for word in islice(matches, MAX_WORDS)]


def _runs(words: Sequence[str], length: int) -> Iterator[tuple[str, ...]]:
    run: deque[str] = deque(maxlen=length)
    for word in words:
        run.append(word)
        if len(run) == length:
            yield tuple(run)


def _covered(words: Sequence[str], shared: set[tuple[str, ...]]) -> int:
    """Count the words that lie in a shared run."""
    covered, end = 0, 0
    for at, run in enumerate(_runs(words, COPIED_RUN_WORDS)):
        if run in shared:
            covered += at + COPIED_RUN_WORDS - max(at, end)
            end = at + COPIED_RUN_WORDS
    return covered


def _repeated(words: Sequence[str]) -> float:
    runs = list(_runs(words, REPEATED_RUN_WORDS))
    return 1 - len(set(runs)) / len(runs) if runs else 0.0
