"""Validation of a request's items: bounded by the problems that a reply names."""

from dataclasses import replace
from typing import ClassVar

import pytest
from pydantic import model_validator
from support.servers import Served

from assay.errors import MAX_PROBLEMS
from assay.settings import Settings
from assay_models.items import TextItem
from assay_models.registry import FAMILIES


class CountedItem(TextItem):
    """An item that counts how many of its kind were validated."""

    validated: ClassVar[int] = 0

    @model_validator(mode="before")
    @classmethod
    def _count(cls, data: object) -> object:
        cls.validated += 1
        return data


@pytest.fixture(autouse=True)
def counted(scripted_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripted model with items that are counted."""
    monkeypatch.setitem(FAMILIES, "scripted", replace(FAMILIES["scripted"], item=CountedItem))


async def test_validation_ends_once_there_are_as_many_problems_as_a_reply_names(
    served: Served, scripted_settings: Settings
) -> None:
    async with served(scripted_settings) as client:
        before = CountedItem.validated
        body = {"model": "scripted", "items": [{"text": 1}] * 1_000}
        answer = await client.post("/v1/score", json=body)
        assert answer.status_code == 422
        assert len(answer.json()["errors"]) == MAX_PROBLEMS
        assert CountedItem.validated == before + MAX_PROBLEMS


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"model": "scripted", "items": [1] * 1_025}, 413),
        ({"model": "scripted", "items": [{"text": "a"}] * 1_025}, 413),
        ({"model": "scripted", "items": [1] * 1_024}, 422),
        ({"model": "scripted", "items": [{"messages": [1] * 100_000}] * 3}, 422),
    ],
)
async def test_too_many_items_are_refused_before_any_is_validated(
    served: Served, scripted_settings: Settings, body: dict[str, object], status: int
) -> None:
    async with served(scripted_settings) as client:
        before = CountedItem.validated
        answer = await client.post("/v1/score", json=body)
        assert answer.status_code == status
        assert len(answer.json()["errors"] or ()) <= MAX_PROBLEMS
        assert CountedItem.validated - before <= 3


@pytest.mark.parametrize("count", [1, 200, 2_000, 20_000])
async def test_any_number_of_unknown_fields_is_a_422_with_the_known_ones(
    served: Served, scripted_settings: Settings, count: int
) -> None:
    async with served(scripted_settings) as client:
        item = {f"field{number}": 1 for number in range(count)}
        answer = await client.post("/v1/score", json={"model": "scripted", "items": [item]})
    assert answer.status_code == 422
    assert answer.json()["hint"].startswith("fields of an item of this model: ")
