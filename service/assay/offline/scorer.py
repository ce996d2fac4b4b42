"""Scorer: the interface to a model in this process or on a server, and scoring of one batch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from assay.offline.lines import InputLine, parse_item
from assay.types import ItemFailure, ItemResult


class Halted(Exception):
    """Scoring cannot continue. Written results stay, and the same command continues from there.

    With `is_usage_error`, the same command would fail again, and another one is needed.
    """

    def __init__(
        self, detail: str, hint: str | None = None, *, is_usage_error: bool = False
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = hint
        self.is_usage_error = is_usage_error


class ItemsRefused(Exception):
    """Items of a batch have missing or unknown fields; no item of the batch was scored.

    `problems` maps the position of each such item in the batch to its problem.
    """

    def __init__(self, problems: Mapping[int, str]) -> None:
        super().__init__(f"{len(problems)} items refused")
        self.problems = problems


class BatchTooLarge(Exception):
    """A batch has more bytes or tokens than one request may have."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The model (`name@version`) and the fingerprint under which a score was computed."""

    model: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class ItemOutcome:
    """One item's result, and the model that computed it; None if no model received the item."""

    result: ItemResult
    identity: Identity | None


class Scorer(Protocol):
    """A callable that scores a batch of items, in order.

    Raises:
        ItemsRefused: fields are missing, unknown or of a wrong type.
        BatchTooLarge: smaller batches may be accepted.
        Halted: nothing more can be scored.
    """

    async def __call__(self, items: Sequence[Mapping[str, Any]]) -> list[ItemOutcome]:
        """Return the outcome of each item."""
        ...


async def score_batch(lines: Sequence[InputLine], scorer: Scorer) -> list[ItemOutcome]:
    """Return the outcome of each line; a line that is no item fails with `invalid_line`."""
    parsed = [parse_item(line) for line in lines]
    items = [item for item in parsed if not isinstance(item, ItemFailure)]
    outcomes = iter(await _score_accepted(items, scorer))
    return [
        _failed_outcome(item, None) if isinstance(item, ItemFailure) else next(outcomes)
        for item in parsed
    ]


def item_problems(problems: Sequence[Mapping[str, Any]]) -> dict[int, str]:
    """Return the first problem of each item by its position, from fields named `items.N.field`."""
    first: dict[int, str] = {}
    for problem in problems:
        root, _, rest = str(problem.get("field", "")).partition(".")
        position, _, name = rest.partition(".")
        if root == "items" and position.isdecimal():
            text = f"{name or 'item'}: {problem.get('problem', 'refused')}"
            first.setdefault(int(position), text)
    return first


async def _score_accepted(items: Sequence[Mapping[str, Any]], scorer: Scorer) -> list[ItemOutcome]:
    """Score the items; in each round, set aside those that the model refuses."""
    outcomes: dict[int, ItemOutcome] = {}
    while pending := [index for index in range(len(items)) if index not in outcomes]:
        try:
            scored = await _score_in_parts([items[index] for index in pending], scorer)
        except ItemsRefused as refused:
            for position, problem in refused.problems.items():
                failure = ItemFailure("invalid_item", problem)
                index = pending[position]
                outcomes[index] = _failed_outcome(failure, items[index])
        else:
            outcomes.update(zip(pending, scored, strict=True))
    return [outcomes[index] for index in range(len(items))]


async def _score_in_parts(items: Sequence[Mapping[str, Any]], scorer: Scorer) -> list[ItemOutcome]:
    """Score the items, halving the batch while it is too large."""
    try:
        return await scorer(items)
    except BatchTooLarge as error:
        if len(items) == 1:
            return [_failed_outcome(ItemFailure("request_too_large", str(error)), items[0])]
    half = len(items) // 2
    first = await _score_in_parts(items[:half], scorer)
    return first + await _score_in_parts(items[half:], scorer)


def _failed_outcome(failure: ItemFailure, item: Mapping[str, Any] | None) -> ItemOutcome:
    names = (item or {}).get("id"), (item or {}).get("group")
    name, group = (value if isinstance(value, str) else None for value in names)
    result = ItemResult(
        index=0,
        id=name,
        group=group,
        status="error",
        score=None,
        raw=None,
        channels={},
        flags=[],
        tokens=0,
        source=None,
        details={},
        error=failure,
    )
    return ItemOutcome(result, None)
