"""Preparation: an invalid item fails alone, also within a group that is prepared together."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pytest
from support.doubles import ScriptedModel, new_metrics

from assay.errors import InvalidRequest
from assay.scoring.prepare import Preparer
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


async def prepare(model: ScriptedModel, items: Sequence[dict[str, Any]]) -> list[PreparedItems]:
    with ThreadPoolExecutor(1) as pool:
        preparer = Preparer(PreparedCache(100_000, new_metrics()), pool)
        for _ in range(2):  # the second time from the cache
            entries, _ = await preparer.prepare(
                model, TextItem, items=items, options=Options(), scope=b""
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
