"""Reading of an item: the claims and passages that are read, and a report on the others."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple

from assay_models.base import ItemError
from assay_models.families.nli.claims import ClaimSplit, clean_claim, has_content, split_claims
from assay_models.families.nli.gaming_signals import (
    GamingSignals,
    has_hidden_characters,
    measure_gaming_signals,
)
from assay_models.items import NliItem
from assay_models.preemption import interruptible, preemption_point

CanRead = Callable[[str], bool]
"""A function that returns whether the model reads the language of a text."""

# The dropped pieces that are reported with their places; all are counted.
MAX_REPORTED_PIECES = 1_000
_NO_TEXT = frozenset({"citation", "marker"})
_COMBINATIONS = (
    "give `premise` and `hypothesis`, or `evidence` and `claims`, or `evidence` and `response`"
)


class NamedClaim(NamedTuple):
    """A claim as it is classified, and its name for the caller.

    The name has `index`, of a response `start` and `end`, and `text` where that is not what the
    caller wrote there.
    """

    text: str
    name: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _ReadClaims:
    """The claims of an item, and the claims or pieces that are none; `split` is of a response."""

    claims: Sequence[NamedClaim]
    dropped: Sequence[Mapping[str, Any]]
    citations: int
    split: ClaimSplit | None = None


@dataclass(frozen=True, slots=True)
class ClaimSet:
    """The claims and the evidence of one item.

    Attributes:
        claims: that can be classified.
        passages: that can be read, by their number in the request.
        unread: names of claims in a language that the model does not read.
        details: of the texts that were left out.
        flags: of the texts.
        signals: measures of the answer.
    """

    claims: Sequence[NamedClaim]
    passages: Mapping[int, str]
    _: KW_ONLY
    unread: Sequence[Mapping[str, Any]]
    details: Mapping[str, Any]
    flags: tuple[str, ...]
    signals: GamingSignals


def read_pair(item: NliItem, can_read: CanRead) -> tuple[str, str] | None:
    """Return premise and hypothesis, or None if the item is no pair.

    Raises:
        ItemError: one of them is without content, or is in a language that the model does not read.
    """
    if _given_fields(item) != {"premise", "hypothesis"}:
        return None
    premise, hypothesis = item.premise or "", item.hypothesis or ""
    _require_evidence([premise], item)
    _require_claims([hypothesis], ())
    for name, text in (("premise", premise), ("hypothesis", hypothesis)):
        if not can_read(text):
            raise _unsupported(f"the {name} is")
    return premise, hypothesis


def read_claims(
    item: NliItem, can_read: CanRead, refuse_too_many: Callable[[int], None]
) -> ClaimSet:
    """Read the claims and the evidence of an item.

    Args:
        item: the item.
        can_read: returns whether the model reads the language of a text.
        refuse_too_many: raises an `ItemError` if an item may not have so many pairs.

    Raises:
        ItemError: its fields do not go together, nothing in it can be classified, or most of its
            claims are in a language that the model does not read.
    """
    evidence = _evidence(item)
    read = _claims(item)
    passages = {number: text for number, text in enumerate(evidence) if has_content(text)}
    _require_evidence(evidence, item)
    _require_claims([claim.text for claim in read.claims], read.dropped)
    readable = {number: text for number, text in passages.items() if can_read(text)}
    if not readable:
        raise _unsupported("the evidence is")
    refuse_too_many(len(read.claims) // 2)  # half of them are read, or the item is refused
    claims, unread = _readable_claims(read.claims, can_read)
    signals = measure_gaming_signals(
        None if read.split is None else read.split.answer,
        [claim.text for claim in claims],
        list(readable.values()),
        unjudged=None if read.split is None else read.split.unjudged,
    )
    conditions = {
        "unsupported_language": bool(unread) or len(readable) < len(passages),
        "citations_removed": read.citations > 0,
    }
    return ClaimSet(
        claims,
        readable,
        unread=unread,
        details={
            "dropped_claims": sum(piece["reason"] not in _NO_TEXT for piece in read.dropped),
            "dropped": read.dropped[:MAX_REPORTED_PIECES],
            "citations": read.citations,
            "unsupported_claims": len(unread),
            "empty_passages": len(evidence) - len(passages),
            "unsupported_passages": len(passages) - len(readable),
        },
        flags=_flags(item, conditions, signals),
        signals=signals,
    )


def _readable_claims(
    claims: Sequence[NamedClaim], can_read: CanRead
) -> tuple[list[NamedClaim], list[Mapping[str, Any]]]:
    is_readable = [can_read(claim.text) for claim in claims]
    readable = [claim for claim, can in zip(claims, is_readable, strict=True) if can]
    unread = [claim.name for claim, can in zip(claims, is_readable, strict=True) if not can]
    if 2 * len(unread) > len(claims):
        raise _unsupported(f"{len(unread)} of {len(claims)} claims are")
    return readable, unread


def _given_fields(item: NliItem) -> set[str]:
    fields = ("premise", "hypothesis", "evidence", "response", "claims")
    return {name for name in fields if getattr(item, name) is not None}


def _evidence(item: NliItem) -> tuple[str, ...]:
    given = _given_fields(item) | ({"evidence"} if item.searched is False else set())
    if given not in ({"evidence", "response"}, {"evidence", "claims"}):
        raise ItemError("invalid_item", _COMBINATIONS)
    return (item.evidence,) if isinstance(item.evidence, str) else item.evidence or ()


def _claims(item: NliItem) -> _ReadClaims:
    if item.claims is None:
        return _claims_of(item.response or "")
    claims, dropped, citations = list[NamedClaim](), list[Mapping[str, Any]](), 0
    for index, given in enumerate(item.claims):
        preemption_point()
        text, count = clean_claim(given)
        citations += count
        if has_content(text):
            own = {} if text == given.strip() else {"text": text}
            claims.append(NamedClaim(text if own else given, {"index": index, **own}))
        else:
            dropped.append({"index": index, "reason": "no_letters"})
    return _ReadClaims(claims, dropped, citations)


def _claims_of(response: str) -> _ReadClaims:
    split = split_claims(response)
    claims = list[NamedClaim]()
    for index, claim in enumerate(split.claims):
        name: dict[str, Any] = {"index": index, "start": claim.start, "end": claim.end}
        if claim.text != response[claim.start : claim.end]:
            name["text"] = claim.text
        claims.append(NamedClaim(claim.text, name))
    dropped = [
        {"start": piece.start, "end": piece.end, "reason": piece.reason}
        for piece in interruptible(split.dropped)
    ]
    citations = sum(claim.citations for claim in split.claims)
    citations += sum(piece.reason == "citation" for piece in split.dropped)
    return _ReadClaims(claims, dropped, citations, split)


def _flags(
    item: NliItem, conditions: Mapping[str, bool], signals: GamingSignals
) -> tuple[str, ...]:
    evidence = (item.evidence,) if isinstance(item.evidence, str) else item.evidence or ()
    texts = (*evidence, *(item.claims or ()), item.response or "")
    conditions = {
        **conditions,
        "no_search": item.searched is False,
        "hidden_characters": has_hidden_characters(texts),
    }
    return (*(name for name, holds in conditions.items() if holds), *signals.flags())


def _require_evidence(passages: Sequence[str], item: NliItem) -> None:
    if any(map(has_content, passages)):
        return
    if item.searched is False:
        raise ItemError("no_search", "there is no evidence because none was searched for")
    raise ItemError("no_evidence", "the evidence has no letter or digit: nothing can be classified")


def _require_claims(claims: Sequence[str], dropped: Sequence[Mapping[str, Any]]) -> None:
    if any(map(has_content, claims)):
        return
    if any(piece["reason"] == "refusal" for piece in dropped):
        raise ItemError(
            "no_claims", "there is no claim to classify: the response declines to answer"
        )
    raise ItemError(
        "no_claims",
        "there is no claim to classify: none is given, or no sentence of the response is one "
        "(too short, a question, a heading, code, a thought, no words)",
    )


def _unsupported(subject: str) -> ItemError:
    return ItemError(
        "unsupported_language",
        f"{subject} in a language or a script that the model does not read "
        "(options.languages of its card)",
    )
