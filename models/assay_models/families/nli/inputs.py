"""From an item to the claims and passages that are judged, and what is told of the others."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from assay_models.base import ItemError
from assay_models.families.nli.claims import Dropped, says_something, split_claims
from assay_models.families.nli.gaming_signals import Guards, guards_of, has_hidden_characters
from assay_models.items import NliItem

Readable = Callable[[str], bool]

# So many dropped pieces are told with their places; all are counted.
TOLD = 1_000
_COMBINATIONS = (
    "give `premise` and `hypothesis`, or `evidence` and `claims`, or `evidence` and `response`"
)


class Named(NamedTuple):
    """A claim, and what names it to the caller: `index`, and of a response `start` and `end`."""

    text: str
    name: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Case:
    """What one item asks.

    Attributes:
        claims: that can be judged.
        passages: that can be read, by their number in the request.
        unread: names of claims in a language that the model does not read.
        details: of what was left out.
        flags: of the texts.
        guards: measures of the answer.
    """

    claims: Sequence[Named]
    passages: Mapping[int, str]
    unread: Sequence[Mapping[str, Any]]
    details: Mapping[str, Any]
    flags: tuple[str, ...]
    guards: Guards


def pair_of(item: NliItem, readable: Readable) -> tuple[str, str] | None:
    """Premise and hypothesis, if the item is a pair.

    Raises:
        ItemError: one of them says nothing, or is in a language that the model does not read.
    """
    if _given(item) != {"premise", "hypothesis"}:
        return None
    premise, hypothesis = item.premise or "", item.hypothesis or ""
    _require_evidence([premise], item)
    _require_claims([hypothesis])
    for name, text in (("premise", premise), ("hypothesis", hypothesis)):
        if not readable(text):
            raise _unsupported(f"the {name} is")
    return premise, hypothesis


def case_of(item: NliItem, readable: Readable) -> Case:
    """What an item with evidence asks.

    Raises:
        ItemError: its fields do not go together, nothing can be judged in it, or most of its claims
            are in a language that the model does not read.
    """
    evidence = _evidence(item)
    found, dropped = _claims(item)
    said = {place: text for place, text in enumerate(evidence) if says_something(text)}
    _require_evidence(evidence, item)
    _require_claims([claim.text for claim in found])
    passages = {place: text for place, text in said.items() if readable(text)}
    if not passages:
        raise _unsupported("the evidence is")
    read = [readable(claim.text) for claim in found]
    claims = [claim for claim, can in zip(found, read, strict=True) if can]
    unread = [claim.name for claim, can in zip(found, read, strict=True) if not can]
    if 2 * len(unread) > len(found):
        raise _unsupported(f"{len(unread)} of {len(found)} claims are")
    texts = [claim.text for claim in claims]
    guards = guards_of(item.response, texts, list(passages.values()))
    return Case(
        claims=claims,
        passages=passages,
        unread=unread,
        details={
            "dropped_claims": sum(piece["reason"] != "marker" for piece in dropped),
            "dropped": dropped[:TOLD],
            "unsupported_claims": len(unread),
            "empty_passages": len(evidence) - len(said),
            "unsupported_passages": len(said) - len(passages),
        },
        flags=_flags(item, bool(unread) or len(passages) < len(said), guards),
        guards=guards,
    )


def _given(item: NliItem) -> set[str]:
    fields = ("premise", "hypothesis", "evidence", "response", "claims")
    return {name for name in fields if getattr(item, name) is not None}


def _evidence(item: NliItem) -> tuple[str, ...]:
    given = _given(item) | ({"evidence"} if item.searched is False else set())
    if given not in ({"evidence", "response"}, {"evidence", "claims"}):
        raise ItemError("invalid_item", _COMBINATIONS)
    return (item.evidence,) if isinstance(item.evidence, str) else item.evidence or ()


def _claims(item: NliItem) -> tuple[list[Named], list[dict[str, Any]]]:
    """The claims, and the pieces or the claims that are none."""
    if item.claims is not None:
        named = [Named(claim, {"index": at}) for at, claim in enumerate(item.claims)]
        empty = [one for one in named if not says_something(one.text)]
        told = [{**one.name, "reason": "no_letters"} for one in empty]
        return [one for one in named if says_something(one.text)], told
    split = split_claims(item.response or "")
    found = [
        Named(claim.text, {"index": at, "start": claim.start, "end": claim.end})
        for at, claim in enumerate(split.claims)
    ]
    return found, [_told(piece) for piece in split.dropped]


def _told(piece: Dropped) -> dict[str, Any]:
    return {"start": piece.start, "end": piece.end, "reason": piece.reason}


def _flags(item: NliItem, unread: bool, guards: Guards) -> tuple[str, ...]:
    evidence = (item.evidence,) if isinstance(item.evidence, str) else item.evidence or ()
    texts = (*evidence, *(item.claims or ()), item.response or "")
    signs = {
        "unsupported_language": unread,
        "no_search": item.searched is False,
        "hidden_characters": has_hidden_characters(texts),
    }
    return (*(name for name, holds in signs.items() if holds), *guards.flags())


def _require_evidence(passages: Sequence[str], item: NliItem) -> None:
    if any(map(says_something, passages)):
        return
    if item.searched is False:
        raise ItemError("no_search", "there is no evidence because none was searched for")
    raise ItemError("no_evidence", "the evidence has no letter or digit: nothing can be judged")


def _require_claims(claims: Sequence[str]) -> None:
    if not any(map(says_something, claims)):
        raise ItemError(
            "no_claims",
            "there is no claim to judge: none is given, or no sentence of the response is one "
            "(too short, a question, a heading, code, no words)",
        )


def _unsupported(what: str) -> ItemError:
    return ItemError(
        "unsupported_language",
        f"{what} in a language or a script that the model does not read "
        "(options.languages of its card)",
    )
