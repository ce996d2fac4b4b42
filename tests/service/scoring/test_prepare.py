"""Preparation: an invalid item fails alone, also within a group that is prepared together."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pytest
from support.doubles import ScriptedModel, new_metrics

from assay.cache.keys import cache_key
from assay.errors import InvalidRequest, RequestTooLarge
from assay.scoring.preparation_pool import PreparationPool
from assay.scoring.prepare import (
    MAX_REQUEST_INPUTS,
    YIELD_TEXTS,
    PrepareCall,
    Preparer,
    RequestBudget,
)
from assay.scoring.prepared_cache import PreparedCache, PreparedItems, digest_of
from assay.types import InvalidValue, ItemFailure
from assay_models.base import Input, Item, Options, Prepared
from assay_models.items import TextItem, strings
from assay_models.preemption import preemption_point

BAD = InvalidValue("items.1.text", "half of a surrogate pair is not Unicode text")


@dataclass(frozen=True, slots=True)
class GroupModel(ScriptedModel):
    """A model that prepares the items of a group together."""

    sees: ClassVar[Literal["item", "group"]] = "group"

    def prepare(self, items: Sequence[Item], options: Options) -> Prepared:
        texts = [item.text or "" for item in items if isinstance(item, TextItem)]
        return Prepared(tuple(Input(text.encode(), 1, text) for text in texts))


async def prepare(
    model: ScriptedModel, items: Sequence[dict[str, Any]], max_tokens: int = 100
) -> list[PreparedItems]:
    metrics = new_metrics()
    pool = PreparationPool(1, max_bytes=1 << 20, clock=time.monotonic, metrics=metrics)
    preparer = Preparer(PreparedCache(100_000, metrics), pool)
    call = PrepareCall(
        model,
        "f",
        TextItem,
        Options(),
        scope=b"",
        budget=RequestBudget(max_tokens),
        lane="training",
        deadline=time.monotonic() + 60,
    )
    try:
        for _ in range(2):  # the second time from the cache
            call.budget = RequestBudget(max_tokens)
            entries, _ = await preparer.prepare(call, items)
    finally:
        pool.close()
    return entries


def summary(entries: Sequence[PreparedItems]) -> list[tuple[tuple[int, ...], str]]:
    """Return the indices of each entry, and its failure's code or `ok`."""
    return [
        (entry.indices, entry.prepared.code if isinstance(entry.prepared, ItemFailure) else "ok")
        for entry in entries
    ]


async def test_keys_have_the_fingerprint_of_the_request_whatever_is_proven_meanwhile() -> None:
    class Renewed(ScriptedModel):
        __slots__ = ()

        @property
        def fingerprint(self) -> str:
            return "that of another engine"

    (entry,) = await prepare(object.__new__(Renewed), [{"text": "a"}])
    assert not isinstance(entry.prepared, ItemFailure)
    assert entry.keys == (cache_key("f", entry.prepared.inputs[0].key),)


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


async def test_a_request_of_too_many_tokens_stops_before_its_other_items(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prepared: list[Item] = []
    plain = ScriptedModel.prepare

    def record(model: ScriptedModel, items: Sequence[Item], options: Options) -> Prepared:
        prepared.extend(items)
        return plain(model, items, options)

    monkeypatch.setattr(ScriptedModel, "prepare", record)
    items = [{"text": f"{number:06}"} for number in range(10)]
    with pytest.raises(RequestTooLarge, match="24 tokens, the limit is 20"):
        await prepare(ScriptedModel(), items, max_tokens=20)
    assert len(prepared) == 4


async def test_an_item_of_too_many_inputs_is_stopped_while_they_are_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[int] = []

    def make(model: ScriptedModel, items: Sequence[Item], options: Options) -> Prepared:
        for number in range(10):
            preemption_point(3, 1)
            made.append(number)
        return Prepared(())

    monkeypatch.setattr(ScriptedModel, "prepare", make)
    with pytest.raises(RequestTooLarge, match="21 tokens, the limit is 20"):
        await prepare(ScriptedModel(), [{"text": "a"}], max_tokens=20)
    assert made == [0, 1, 2, 3, 4, 5]


def test_tokens_made_for_an_item_that_fails_or_is_not_finished_are_made() -> None:
    budget = RequestBudget(100)
    done = PreparedItems(Prepared(()), tokens=7)
    for entry in (done, PreparedItems(ItemFailure("item_failed", "no"))):
        budget.add_unfinished(10, 1)
        budget.add([entry])
    assert budget.made == 7 + 10
    with pytest.raises(RequestTooLarge):
        budget.add_unfinished(94, 1)
    assert budget.made == 7 + 10 + 94


def test_a_request_has_a_bounded_number_of_inputs() -> None:
    budget = RequestBudget(10**9)
    budget.add_unfinished(1, MAX_REQUEST_INPUTS)
    with pytest.raises(RequestTooLarge, match=f"the limit is {MAX_REQUEST_INPUTS}"):
        budget.add_unfinished(1, 1)
    budget.add([PreparedItems(Prepared(()), keys=(b"",) * MAX_REQUEST_INPUTS)])
    with pytest.raises(RequestTooLarge):
        budget.add([PreparedItems(Prepared(()), keys=(b"",))])


def test_a_preparation_that_begins_again_is_counted_once() -> None:
    budget = RequestBudget(10)
    cached, fresh = PreparedItems(Prepared(()), tokens=4), PreparedItems(Prepared(()), tokens=6)
    for _ in range(2):
        budget.start([cached])
        budget.add([fresh])
    with pytest.raises(RequestTooLarge, match="11 tokens"):
        budget.add_unfinished(1, 1)


async def test_a_long_item_is_measured_in_steps_and_up_to_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log: list[str] = []

    def read(value: object) -> Iterator[str]:
        for text in strings(value):
            log.append("text")
            yield text

    async def other() -> None:
        while True:
            log.append("other")
            await asyncio.sleep(0)

    monkeypatch.setattr("assay.scoring.prepare.strings", read)
    beside = asyncio.create_task(other())
    with pytest.raises(RequestTooLarge, match="the limit of their lane is"):
        await prepare(ScriptedModel(), [{"text": ["x" * 20] * 20 * YIELD_TEXTS}])
    beside.cancel()
    texts = [position for position, entry in enumerate(log) if entry == "text"]
    assert len(texts) <= 4 * YIELD_TEXTS, "it stops once there are too many bytes"
    assert "other" in log[texts[0] : texts[-1]]


async def test_the_bytes_of_a_long_text_are_admitted(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    run = PreparationPool.run

    async def record(pool: PreparationPool, work: Any, *, size: int, **rest: Any) -> Any:
        sizes.append(size)
        return await run(pool, work, size=size, **rest)

    monkeypatch.setattr(PreparationPool, "run", record)
    monkeypatch.setattr("assay.scoring.prepared_cache.MAX_DIGEST_BYTES", 1000)
    for text in ("x" * 2000, "\u00e9" * 2000):
        entries = await prepare(ScriptedModel(), [{"text": text}], max_tokens=10**6)
        assert summary(entries) == [((0,), "ok")]
    assert len(sizes) == 4, "a text without a digest is prepared each time"
    assert all(2000 <= size <= 8000 for size in sizes), "Python's own bytes of the text"


async def test_a_text_of_every_item_is_refused_before_it_is_read_for_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: list[int] = []

    def count(scope: bytes, items: Sequence[Any]) -> tuple[bytes | None, int]:
        read.append(len(items))
        return digest_of(scope, items)

    monkeypatch.setattr("assay.scoring.prepare.digest_of", count)
    shared = "x" * (2 << 20)
    with pytest.raises(RequestTooLarge, match="items have 2097156 bytes"):
        await prepare(ScriptedModel(), [{"text": shared}] * 1000)
    assert len(read) == 1
