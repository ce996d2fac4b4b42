"""What an answer's own text tells of a policy that games a checker, without a forward pass.

The signs are those of the cascade in "What makes a medical checker trainable?" (arXiv 2605.25988):
short answers, answers without a search, another language. All are told beside the score, and none
is part of it.
"""

import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

# The paper takes 0.3 off answers shorter than this, in characters.
SHORT = 50
# A run of so many words is not written twice by chance.
RUN = 8
REPEATED = 4
# Of each text so many words are looked at.
MOST_WORDS = 50_000
MOSTLY = 0.8
OFTEN = 0.3
_WORD = re.compile(r"[^\W_]+")
_HIDDEN = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]")


@dataclass(frozen=True, slots=True)
class Guards:
    """Measures of one answer beside its evidence.

    Attributes:
        characters: of the answer; None where only its claims are known.
        overlap: the share of the claims' words, each counted once, that the evidence has too.
        copied: the share of the answer's words that lie in runs of eight or more that are in the
            evidence word for word.
        repetition: the share of the answer's runs of four words that it had before.
    """

    characters: int | None
    overlap: float
    copied: float
    repetition: float

    def flags(self) -> tuple[str, ...]:
        """`short_answer`, `copied`, `repetition`: which of the measures is out of the ordinary."""
        signs = {
            "short_answer": self.characters is not None and self.characters < SHORT,
            "copied": self.copied >= MOSTLY,
            "repetition": self.repetition >= OFTEN,
        }
        return tuple(name for name, holds in signs.items() if holds)

    def told(self) -> dict[str, Any]:
        """The measures by name, as `details.guards` has them."""
        return asdict(self)


def guards_of(answer: str | None, claims: Sequence[str], evidence: Iterable[str]) -> Guards:
    """The measures of an answer and its claims, words compared without regard to case.

    Args:
        answer: the response; None where only its claims are known, which then stand for it.
        claims: what is judged of it.
        evidence: the passages.
    """
    words = _words("\n".join(claims) if answer is None else answer)
    asked = {word for claim in claims for word in _words(claim)}
    runs = set(_runs(words, RUN))
    known: set[str] = set()
    shared: set[tuple[str, ...]] = set()
    for passage in evidence:
        held = _words(passage)
        known |= asked.intersection(held)
        shared.update(run for run in _runs(held, RUN) if run in runs)
    return Guards(
        characters=None if answer is None else len(answer),
        overlap=len(known) / len(asked) if asked else 0.0,
        copied=_covered(words, shared) / len(words) if words else 0.0,
        repetition=_repeated(words),
    )


def has_hidden_characters(texts: Iterable[str]) -> bool:
    """Whether a text holds characters without a shape, or such that turn its direction."""
    return any(_HIDDEN.search(text) for text in texts)


def _words(text: str) -> list[str]:
    found = _WORD.finditer(text.casefold())
    return [word.group() for word in islice(found, MOST_WORDS)]


def _runs(words: Sequence[str], length: int) -> Iterator[tuple[str, ...]]:
    run: deque[str] = deque(maxlen=length)
    for word in words:
        run.append(word)
        if len(run) == length:
            yield tuple(run)


def _covered(words: Sequence[str], shared: set[tuple[str, ...]]) -> int:
    """How many words lie in a shared run."""
    covered, end = 0, 0
    for at, run in enumerate(_runs(words, RUN)):
        if run in shared:
            covered += at + RUN - max(at, end)
            end = at + RUN
    return covered


def _repeated(words: Sequence[str]) -> float:
    runs = list(_runs(words, REPEATED))
    return 1 - len(set(runs)) / len(runs) if runs else 0.0
