"""Preparation: an invalid item fails alone, also within a group that is prepared together."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pytest
from pydantic import model_validator
from support.doubles import ScriptedModel, new_metrics

from assay.errors import InvalidRequest
from assay.scoring.prepare import MAX_PROBLEMS, Preparer
from assay.scoring.prepared_cache import PreparedCache, PreparedItems
from assay.types import InvalidValue, ItemFailure
from assay_models.base import Input, Item, Options, Prepared
from assay_models.items import TextItem

BAD = InvalidValue("items.1.text", "half of a surrogate pair is not Unicode text")


@dataclass(frozen=True, slots=True)
class GroupModel(ScriptedModel):
    """A model that prepares the items of a group together."""

    sees: ClassVar[Literal["item", "group"]] = "group"

    def prepare(self, items: Sequence[Item], options: Options) -> Prepared:
        texts = [item.text or "" for item in items if isinstance(item, TextItem)]
        return Prepared(tuple(Input(text.encode(), 1, text) for text in texts))


async def prepare(
    model: ScriptedModel, items: Sequence[dict[str, Any]], schema: type[Item] = TextItem
) -> list[PreparedItems]:
    with ThreadPoolExecutor(1) as pool:
        preparer = Preparer(PreparedCache(100_000, new_metrics()), pool)
        for _ in range(2):  # the second time from the cache
            entries, _ = await preparer.prepare(
                model, schema, items=items, options=Options(), scope=b""
            )
    return entries


def summary(entries: Sequence[PreparedItems]) -> list[tuple[tuple[int, ...], str]]:
    """Return the indices of each entry, and its failure's code or `ok`."""
    return [
        (entry.indices, entry.prepared.code if isinstance(entry.prepared, ItemFailure) else "ok")
        for entry in entries
    ]


async def test_an_invalid_item_keeps_its_place_among_the_others() -> None:
    entries = await prepare(ScriptedModel(), [{"text": "a"}, {"text": BAD}, {"text": "b"}])
    assert summary(entries) == [((0,), "ok"), ((1,), "invalid_json"), ((2,), "ok")]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["a", BAD, "b"], [((0, 2), "ok"), ((1,), "invalid_json")]),
        ([BAD, BAD], [((0,), "invalid_json"), ((1,), "invalid_json")]),
    ],
)
async def test_an_invalid_item_of_a_group_leaves_the_rest_of_it(
    texts: Sequence[Any], expected: list[tuple[tuple[int, ...], str]]
) -> None:
    items = [{"id": str(index), "group": "g", "text": text} for index, text in enumerate(texts)]
    entries = await prepare(GroupModel(), items)
    assert summary(entries) == expected
    pairs = [pair for entry in entries for pair in zip(entry.indices, entry.items, strict=True)]
    named = {index: item.id for index, item in pairs}
    assert named == {index: str(index) for index in range(len(texts))}


async def test_an_item_of_a_wrong_shape_refuses_the_request() -> None:
    with pytest.raises(InvalidRequest) as caught:
        await prepare(ScriptedModel(), [{"text": BAD}, {"txt": "a"}])
    assert caught.value.problems is not None
    assert [problem["field"] for problem in caught.value.problems] == ["items.1.txt"]


class CountedItem(TextItem):
    """An item that counts how many of its kind were validated."""

    validated: ClassVar[int] = 0

    @model_validator(mode="before")
    @classmethod
    def _count(cls, data: object) -> object:
        cls.validated += 1
        return data


async def test_validation_ends_once_there_are_as_many_problems_as_a_reply_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(CountedItem, "validated", 0)
    items = [{"text": 1}] * 1_000
    with pytest.raises(InvalidRequest) as raised:
        await prepare(ScriptedModel(), items, schema=CountedItem)
    assert len(raised.value.problems or ()) == MAX_PROBLEMS
    assert CountedItem.validated == MAX_PROBLEMS


async def test_other_tasks_run_between_the_items_of_a_large_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("assay.scoring.prepare.SLICE_SECONDS", 0.0)
    monkeypatch.setattr(CountedItem, "validated", 0)
    seen: list[int] = []

    async def watch() -> None:
        while CountedItem.validated < 100:
            seen.append(CountedItem.validated)
            await asyncio.sleep(0)

    watching = asyncio.create_task(watch())
    await prepare(ScriptedModel(), [{"text": "a"}] * 100, schema=CountedItem)
    await watching
    assert len(set(seen)) > 50
