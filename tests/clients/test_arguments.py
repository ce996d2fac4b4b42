"""Arguments as callers give them: tables, generators, runs, and mistakes in the caller's words."""

import math
import re
from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from assay_client import AsyncClient, Client

ROWS = [
    {"question": "1 + 1?", "answer": "2", "value": 1.5},
    {"question": "2 + 2?", "answer": "4", "value": 2.5},
]
COLUMNS = {name: [row[name] for row in ROWS] for name in ROWS[0]}


class PolarsFrame:
    """The part of a polars DataFrame by which it is read: `to_dicts`, and columns as elements."""

    def to_dicts(self) -> list[dict[str, Any]]:
        return [dict(row) for row in ROWS]

    def __iter__(self) -> Iterator[Any]:
        return iter(COLUMNS.values())


def _pandas() -> Any:
    return pytest.importorskip("pandas").DataFrame(COLUMNS)


def _arrow() -> Any:
    return pytest.importorskip("pyarrow").table(COLUMNS)


def _dataset() -> Any:
    return pytest.importorskip("datasets").Dataset.from_dict(COLUMNS)


def _streamed_dataset() -> Any:
    return _dataset().to_iterable_dataset()


TABLES: dict[str, Callable[[], Any]] = {
    "generator": lambda: (dict(row) for row in ROWS),
    "tuple": lambda: tuple(ROWS),
    "views": lambda: [MappingProxyType(row) for row in ROWS],
    "array of objects": lambda: np.array(ROWS, dtype=object),
    "pandas": _pandas,
    "polars": PolarsFrame,
    "arrow": _arrow,
    "arrow batch": lambda: _arrow().to_batches()[0],
    "data set": _dataset,
    "streamed data set": _streamed_dataset,
}


@pytest.mark.parametrize("name", TABLES)
def test_the_rows_of_any_table_are_items(name: str, server: Any, connect: Any) -> None:
    reply = connect(server.url).score("code", TABLES[name]())
    assert server.received[0].body["items"] == ROWS
    assert reply.scores == [1.5, 2.5]


def test_whole_numbers_as_ids_and_groups_are_sent_as_texts(server: Any, connect: Any) -> None:
    rows = [{"value": 1.5, "id": np.int64(7), "group": 3}, {"value": 2.5, "id": "x", "group": None}]
    connect(server.url).score("code", rows)
    names = [(item["id"], item.get("group")) for item in server.received[0].body["items"]]
    assert names == [("7", "3"), ("x", None)]


@pytest.mark.parametrize("name", TABLES)
def test_fields_name_the_columns_of_a_table(name: str, server: Any, connect: Any) -> None:
    fields = {"prompt": "question", "value": "value"}
    connect(server.url).score("code", TABLES[name](), fields=fields)
    expected = [{"prompt": row["question"], "value": row["value"]} for row in ROWS]
    assert server.received[0].body["items"] == expected


def test_fields_may_list_the_columns_that_are_sent(server: Any, connect: Any) -> None:
    connect(server.url).score("code", ROWS, fields=["value"])
    assert server.received[0].body["items"] == [{"value": 1.5}, {"value": 2.5}]


@pytest.mark.parametrize("collect", [tuple, iter, np.array])
def test_candidates_may_come_from_any_iterable(
    collect: Callable[[list[str]], Any], server: Any, connect: Any
) -> None:
    connect(server.url).best_of_n("code", collect(["a", "b"]), prompt="p")
    assert server.received[0].body["candidates"] == ["a", "b"]


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        (np.int64(3), 3),
        (np.float32(0.5), 0.5),
        (np.bool_(True), True),
        (np.array([[1, 2]]), [[1, 2]]),
        (MappingProxyType({"a": (np.int8(1),)}), {"a": [1]}),
        (range(2), [0, 1]),
    ],
)
def test_values_of_other_libraries_are_sent_as_json(
    value: Any, sent: Any, server: Any, connect: Any
) -> None:
    connect(server.url).score("code", [{"value": np.float64(1), "extra": value}])
    assert server.received[0].body["items"] == [{"value": 1.0, "extra": sent}]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (math.nan, "its field 'extra' is NaN (a missing value?)"),
        (np.float32(math.nan), "its field 'extra' is NaN"),
        (-math.inf, "its field 'extra' is infinite"),
        ([1.0, math.nan], "its field 'extra' holds another value"),
        (np.array([math.nan]), "its field 'extra' holds another value"),
        (b"bytes", "its field 'extra' is of type bytes"),
        (object(), "its field 'extra' is of type object"),
        (np.datetime64("2026-01-01"), "its field 'extra' is of type date"),
        ("\ud83d", "its field 'extra' has a lone surrogate"),
    ],
)
def test_a_value_that_json_cannot_hold_is_named_by_item_and_field(
    value: Any, reason: str, server: Any, connect: Any
) -> None:
    message = re.escape(f"items[1] cannot be written as JSON: {reason}")
    with pytest.raises(ValueError, match=message):
        connect(server.url).score("code", [{"value": 1}, {"value": 2, "extra": value}])
    assert server.received == []


@pytest.mark.parametrize(
    ("run", "step", "sent"),
    [
        ("exp-17", None, {"id": "exp-17"}),
        ("exp-17", 120, {"id": "exp-17", "step": 120}),
        ("exp-17", np.int64(3), {"id": "exp-17", "step": 3}),
        ({"id": "exp-17", "split": "eval"}, 5, {"id": "exp-17", "split": "eval", "step": 5}),
        ({"id": "exp-17", "step": 5}, 5, {"id": "exp-17", "step": 5}),
    ],
)
def test_a_run_may_be_its_name(run: Any, step: Any, sent: Any, server: Any, connect: Any) -> None:
    client = connect(server.url)
    client.score("code", [{"value": 1}], run=run, step=step)
    client.score_one("code", {"value": 1}, run=run, step=step)
    client.best_of_n("code", ["a"], run=run, step=step)
    assert [received.body["run"] for received in server.received] == [sent] * 3


def test_health_and_telemetry_take_the_run_that_score_takes(server: Any, connect: Any) -> None:
    client = connect(server.url)
    run = {"id": "team/exp-17", "step": 3}
    assert client.run_health(run).run == "team/exp-17"
    client.record_telemetry(run, np.int64(3), {"kl": np.float32(0.5)})
    assert server.received[1].body == {"step": 3, "values": {"kl": 0.5}}


async def _later() -> Any:
    yield {}


WRONG_ITEMS = {
    "one dict": ({"value": 1}, "items is a dict: give a list of dicts, [item]"),
    "columns": (COLUMNS, "of a dict of columns, one dict for each row"),
    "a text": ("text", "items is a string: give a list of dicts"),
    "nothing": (None, "items is None: give a list of dicts"),
    "a number": (3, "items is of type int, which has no rows"),
    "texts": (
        ["text"],
        r'items[0] is a string: an item must be a dict of its fields, such as {"pr',
    ),
    "a gap": ([{"value": 1}, None], "items[1] is None: an item must be a dict"),
    "pairs": ([("p", "r")], "items[0] is a tuple: an item must be a dict"),
    "an empty list": ([], "there are no items to score: items is an empty list"),
    "an empty generator": (iter(()), "there are no items to score"),
    "an asynchronous generator": (_later(), "items is asynchronous: collect it first"),
}


@pytest.mark.parametrize("name", WRONG_ITEMS)
def test_wrong_items_are_refused_in_the_callers_words(name: str, server: Any, connect: Any) -> None:
    items, reason = WRONG_ITEMS[name]
    with pytest.raises(ValueError, match=re.escape(reason)):
        connect(server.url).score("code", items)
    assert server.received == []


def test_an_empty_data_frame_is_refused_by_its_type(connect: Any) -> None:
    with pytest.raises(ValueError, match="no items to score: items is an empty DataFrame"):
        connect().score("code", _pandas()[:0])


ONE = [{"value": 1}]
WRONG_CALLS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "swapped": (lambda c: c.score(ONE, "code"), "the model comes first"),
    "no model": (lambda c: c.score("", ONE), "model must be a name such as 'code'"),
    "model None": (lambda c: c.best_of_n(None, ["a"]), "model must be a name"),
    "model of a number": (lambda c: c.model(1), "model must be a name"),
    "missing column": (
        lambda c: c.score("code", ROWS, fields={"prompt": "prompts"}),
        "items[0] has no 'prompts', from which fields takes 'prompt'; it has: question,",
    ),
    "fields a text": (lambda c: c.score("code", ROWS, fields="value"), "fields must be a dict"),
    "options a text": (lambda c: c.score("code", ONE, options="left"), "options must be a dict"),
    "options of a ranking": (lambda c: c.best_of_n("code", ["a"], options=1), "options must be a"),
    "step alone": (lambda c: c.score("code", ONE, step=3), "name the run too"),
    "two steps": (
        lambda c: c.score("code", ONE, run={"id": "r", "step": 2}, step=3),
        "step is given twice",
    ),
    "run without id": (lambda c: c.score("code", ONE, run={"name": "r"}), "the run's name"),
    "run a number": (lambda c: c.score("code", ONE, run=17), "the run's name"),
    "run empty": (lambda c: c.score("code", ONE, run=""), "the run's name"),
    "health of none": (lambda c: c.run_health(None), "the run's name"),
    "one item of several": (lambda c: c.score_one("code", ONE), "several items go to score()"),
    "one item of text": (lambda c: c.score_one("code", "text"), "item is a string"),
    "timeout 0": (lambda c: c.score("code", ONE, timeout=0), "positive number of seconds"),
    "timeout a text": (lambda c: c.score("code", ONE, timeout="5"), "positive number of seconds"),
    "candidates a text": (lambda c: c.best_of_n("code", "abc"), "candidates is a string"),
    "candidates a dict": (lambda c: c.best_of_n("code", {"a": 1}), "candidates is a dict"),
    "candidate None": (lambda c: c.best_of_n("code", ["a", None]), "candidates[1] is None"),
    "telemetry of numbers": (lambda c: c.record_telemetry("r", 1, [0.5]), "values must be a dict"),
    "telemetry NaN": (lambda c: c.record_telemetry("r", 1, {"kl": math.nan}), "values[kl]"),
    "path without slash": (lambda c: c.request("GET", "v1/models"), "path must begin with /"),
    "content a dict": (lambda c: c.request("POST", "/v1", content={}), "content must be bytes"),
}


@pytest.mark.parametrize("name", WRONG_CALLS)
def test_a_wrong_argument_is_refused_in_the_callers_words(
    name: str, server: Any, connect: Any
) -> None:
    call, reason = WRONG_CALLS[name]
    with pytest.raises(ValueError, match=re.escape(reason)):
        call(connect(server.url))
    assert server.received == []


WRONG_SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "no scheme": ({"base_url": "localhost:8000"}, "base_url has no scheme: base_url must be like"),
    "a route": ({"base_url": "http://h:1/v1/score"}, "ends in /v1/score, which the client adds"),
    "a version": ({"base_url": "http://h:1/v1/"}, "ends in /v1, which the client adds itself"),
    "a route in a list": ({"base_url": ["http://h", "http://h/healthz"]}, "ends in /healthz"),
    "a number": ({"base_url": 8000}, "base_url must be like http://host:8000"),
    "bytes": ({"base_url": b"http://h"}, "base_url must be like"),
    "no timeout": ({"timeout": None}, "timeout must be a positive number of seconds"),
    "timeout 0": ({"timeout": 0}, "timeout must be a positive number of seconds"),
    "no retries": ({"max_retries": None}, "max_retries must be a whole number, at least 0"),
    "half a request": ({"max_items_per_request": 0.5}, "max_items_per_request must be a whole"),
}


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("name", WRONG_SETTINGS)
def test_a_wrong_setting_is_refused_in_the_callers_words(name: str, kind: Any) -> None:
    arguments, reason = WRONG_SETTINGS[name]
    with pytest.raises(ValueError, match=re.escape(reason)):
        kind(**arguments)
