"""Claims of a response, and phi: one number for how well evidence supports them.

The formula is that of "What makes a medical checker trainable?" (arXiv 2605.25988).
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from assay_models.base import ItemError
from assay_models.extraction.hidden_characters import remove_hidden
from assay_models.families.nli.citations import citations, without
from assay_models.families.nli.pieces import pieces
from assay_models.families.nli.sentences import Span, stripped
from assay_models.families.nli.statements import Reason, read_statement
from assay_models.items import LABELS, Label
from assay_models.preemption import interruptible, preemption_point
from assay_models.thoughts import thoughts, without_end_tokens

WEIGHTS: Mapping[Label, float] = {
    "entailment": 1.0,
    "neutral": 0.0,
    "contradiction": -1.5,
    "not_entailment": 0.0,
}
"""The weight s of each label in phi (arXiv 2605.25988); with two labels none is contradicted."""

# Pieces of these kinds are no words of the answer.
_NO_WORDS = frozenset({"citation", "marker", "thought", "url"})
_VISIBLE = re.compile(r"\S")
# Each piece takes tens of microseconds, and a text of full stops has a million of them.
MAX_PIECES = 65_536


@dataclass(frozen=True, slots=True)
class Claim:
    """One claim as it is classified, its place in the response in characters, and the number of
    citations that were removed from it."""

    text: str
    start: int
    end: int
    citations: int = 0


@dataclass(frozen=True, slots=True)
class DroppedPiece:
    """A piece of the response that is no claim, its place in characters, and the reason."""

    start: int
    end: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class ClaimSplit:
    """The claims of a response, and the pieces that are none, each in order of their places.

    Attributes:
        claims: the sentences that are classified.
        dropped: everything else but white space.
        answer: the response without its thoughts.
        unjudged: the share of the answer's letters that lie in no claim, 0 to 1.
    """

    claims: tuple[Claim, ...]
    dropped: tuple[DroppedPiece, ...]
    answer: str
    unjudged: float


@dataclass(frozen=True, slots=True)
class ClaimVerdict:
    """The label of one claim under the evidence, and the model's confidence in it (0 to 1)."""

    label: Label
    confidence: float


@dataclass(frozen=True, slots=True)
class Phi:
    """The mean weighted confidence, as the formula gives it and cut to [-1, 1]."""

    unclipped: float
    clipped: float


def split_claims(response: str) -> ClaimSplit:
    """Split a response into claims, one for each sentence.

    A sentence ends at a line break, and at the ends that `sentences` finds. List and quotation
    markers are removed, and so are citations, also from within a claim. The following are no
    claims: thoughts, code in a fenced block, headings that are no sentences, questions that state
    nothing, lead-ins of lists, refusals, names of sources, and pieces without a letter
    (`no_letters`), with nothing but links (`url`), without a word of at most 64 letters
    (`no_words`) or of 15 characters or fewer (`too_short`), where a wide character counts as three.
    Only white space lies outside of claims and dropped pieces. Tokens of a chat template at the end
    are left out.
    """
    response = without_end_tokens(response)
    thought = [stripped(response, *span) for span in thoughts(response)[0]]
    plain = _blanked(response, thought, end="\n")
    cited = citations(plain)
    claims: list[Claim] = []
    dropped: list[DroppedPiece] = []
    for start, end, reason in pieces(_blanked(plain, cited)):
        preemption_point()
        _refuse_too_many(len(claims) + len(dropped))
        inside = _inside(cited, start, end)
        text = remove_hidden(without(plain, start, end, inside))[0].strip()
        if reason is None:
            text, reason = read_statement(text)
        if reason is None:
            claims.append(Claim(text, start, end, len(inside)))
        else:
            dropped.append(DroppedPiece(start, end, reason))
    dropped += [DroppedPiece(*span, "thought") for span in _outside(thought, [*claims, *dropped])]
    dropped += [DroppedPiece(*span, "citation") for span in _outside(cited, [*claims, *dropped])]
    dropped.sort(key=lambda piece: piece.start)
    answer = without(response, 0, len(response), thought).strip() if thought else response
    return ClaimSplit(tuple(claims), tuple(dropped), answer, _unjudged(plain, claims, dropped))


def clean_claim(text: str) -> tuple[str, int]:
    """Return a claim without its citations and hidden characters, and how many citations it had."""
    cited = citations(text)
    return remove_hidden(without(text, 0, len(text), cited))[0].strip(), len(cited)


def phi(verdicts: Sequence[ClaimVerdict], weights: Mapping[Label, float] = WEIGHTS) -> Phi:
    """Compute the mean of s * p over claims: p is the confidence, s the weight of the label.

    The weights are +1 for entailed, 0 for neutral and -1.5 for contradicted claims.

    Args:
        verdicts: at least one; without claims there is no phi, which is not the same as phi = 0.
        weights: s of each label.
    """
    total = sum(weights[verdict.label] * verdict.confidence for verdict in verdicts)
    mean = total / len(verdicts)
    return Phi(mean, min(1.0, max(-1.0, mean)))


def label_shares(
    verdicts: Sequence[ClaimVerdict], labels: Sequence[Label] = LABELS
) -> dict[Label, float]:
    """Return the share of claims under each label."""
    given = [verdict.label for verdict in verdicts]
    return {label: given.count(label) / len(given) for label in labels}


def has_content(text: str) -> bool:
    """Return whether there is a letter or a digit in a text."""
    return any(character.isalnum() for character in text)


def _refuse_too_many(pieces: int) -> None:
    if pieces >= MAX_PIECES:
        raise ItemError(
            "input_too_long",
            f"the response has more than {MAX_PIECES} sentences and other pieces: shorten it",
        )


def _blanked(text: str, spans: Iterable[Span], end: str = " ") -> str:
    """Return a text of the same length with blanks in these spans; line breaks stay.

    Args:
        text: the text.
        spans: start and end of each place.
        end: the last character in the place of each, such as a line break, which ends a sentence.
    """
    kept, reached = list[str](), 0
    for first, last in interruptible(spans):
        kept += [text[reached:first], _VISIBLE.sub(" ", text[first : last - 1]), end]
        reached = last
    return "".join([*kept, text[reached:]])


def _inside(spans: Sequence[Span], start: int, end: int) -> Sequence[Span]:
    return spans[bisect_left(spans, (start, start)) : bisect_left(spans, (end, end))]


def _outside(spans: Sequence[Span], found: Sequence[Claim | DroppedPiece]) -> list[Span]:
    """Return the spans that lie in no piece."""
    places = sorted((piece.start, piece.end) for piece in interruptible(found))
    starts, ends = [start for start, _ in places], [0, *(end for _, end in places)]
    return [span for span in interruptible(spans) if ends[bisect_right(starts, span[0])] <= span[0]]


def _unjudged(plain: str, claims: Sequence[Claim], dropped: Sequence[DroppedPiece]) -> float:
    claimed = sum(_letters(plain, claim) for claim in interruptible(claims))
    others = [piece for piece in dropped if piece.reason not in _NO_WORDS]
    unjudged = sum(_letters(plain, piece) for piece in interruptible(others))
    return unjudged / (claimed + unjudged) if unjudged else 0.0


def _letters(plain: str, piece: Claim | DroppedPiece) -> int:
    return sum(map(str.isalpha, plain[piece.start : piece.end]))
