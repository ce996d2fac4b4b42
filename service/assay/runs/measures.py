"""Observations of items: the result of each, and measures of the policy's response."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from assay.types import ItemResult
from assay_monitors.observations import Observation, measure_text

Item = Mapping[str, Any]

# Codes and flags of a response in which there was nothing to score.
INVALID = frozenset(("invalid_code", "no_claims"))
UNSURE = "low_confidence"


class PolicyResponse(NamedTuple):
    """The policy's response in an item: its text, the number of tool calls, and its tokens."""

    text: str | None
    calls: int | None = None
    tokens: int | None = None


def observation(response: PolicyResponse, result: ItemResult) -> Observation:
    """Return what is recorded of an item: its result, and measures of the response's text."""
    scored = result.status == "ok"
    measures = None if response.text is None else measure_text(response.text)
    return Observation(
        score=result.score if scored else None,
        channels=result.channels,
        labels=_labels(result.details),
        flags=_flags(result),
        group=result.group,
        source=result.source,
        invalid=_invalid(result),
        characters=measures and measures.characters,
        tokens=response.tokens,
        script=measures and measures.script,
        calls=response.calls,
    )


def _invalid(result: ItemResult) -> bool:
    return "invalid_code" in result.flags or (
        result.error is not None and result.error.code in INVALID
    )


def _flags(result: ItemResult) -> tuple[str, ...]:
    """Return the flags of a result, with `error:CODE` for one without a score."""
    if result.error is None:
        return tuple(result.flags)
    return (*result.flags, f"error:{result.error.code}")


def _labels(details: Mapping[str, Any]) -> dict[str, int]:
    """Count the label of a pair, or of each claim of an answer.

    A label below the model's own confidence bound counts as `low_confidence`.
    """
    claims = details.get("claims")
    verdicts = claims if isinstance(claims, list) else [details]
    return Counter(
        [
            UNSURE if verdict.get("status") == UNSURE else verdict["label"]
            for verdict in verdicts
            if isinstance(verdict.get("label"), str)
        ]
    )


def policy_response(fields: Item, candidate: str) -> PolicyResponse:
    """Return the policy's response; a failed item's fields may be of any type."""
    text, tokens = response_text(fields, candidate), fields.get("response_tokens")
    return PolicyResponse(text, _calls(fields), tokens if isinstance(tokens, int) else None)


def _calls(fields: Item) -> int | None:
    """Return the number of tool calls; `searched` without `calls` counts as one or none."""
    calls, searched = fields.get("calls"), fields.get("searched")
    if calls is None and isinstance(searched, bool):
        return int(searched)
    return calls if isinstance(calls, int) else None


def response_text(fields: Item, candidate: str) -> str | None:
    """Return the response, the field in which candidates vary, or the last message's content."""
    messages = fields.get("messages")
    last = messages[-1] if messages and isinstance(messages, Sequence) else None
    content = last.get("content") if last and isinstance(last, Mapping) else None
    for text in (fields.get("response"), fields.get(candidate), content):
        if isinstance(text, str):
            return text
    return None
