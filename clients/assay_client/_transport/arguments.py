"""Arguments of the calls: converted from all that a caller may give, or refused in its words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any, Union, get_args

from assay_client.types import OnError, Priority

JsonObject = Mapping[str, Any]
Columns = Union[Mapping[str, str], Sequence[str]]
Run = Union[str, Mapping[str, Any]]
Items = Any
"""Dicts in any iterable, or a table: packages that the client does not import."""
Candidates = Any
"""Texts, or what `Items` may be."""

_EXAMPLE = 'such as {"prompt": "…", "response": "…"}'
_NO_RUN = (
    "run must be the run's name, such as 'exp-17', or a dict that has it as `id`, such as "
    "{'id': 'exp-17', 'step': 120}"
)
_KINDS: Mapping[Any, str] = {
    str: "a string",
    bytes: "bytes",
    dict: "a dict",
    list: "a list",
    tuple: "a tuple",
}


@dataclass(frozen=True)
class ScoreArguments:
    """The arguments of one call of `score`, as they are sent."""

    model: str
    items: Sequence[JsonObject] = field(repr=False)
    options: JsonObject | None
    run: JsonObject | None
    on_error: OnError
    priority: Priority | None


def score_arguments(
    model: Any,
    items: Any,
    *,
    fields: Any,
    options: Any,
    run: Any,
    step: Any,
    on_error: Any,
    priority: Any,
) -> ScoreArguments:
    """Return the arguments of a call, converted and checked.

    Raises:
        ValueError: an argument cannot be sent; the message says what it is.
    """
    if isinstance(items, str) and not isinstance(model, str):
        raise ValueError("the model comes first, then the items: score('code', items)")
    check_model(model)
    check_priority(priority)
    if on_error not in ("raise", "none"):
        raise ValueError("on_error must be 'raise' or 'none'")
    rows = to_items(items, fields)
    return ScoreArguments(
        model, rows, check_options(options), to_run(run, step), on_error, priority
    )


def to_items(items: Any, fields: Columns | None = None) -> list[JsonObject]:
    """Return the items of a call.

    Args:
        items: dicts of fields, in a list or from any other iterable, or the rows of a table: a
            DataFrame (pandas, polars), an Arrow table, a Hugging Face data set.
        fields: the column of each field of an item, or the columns that are fields; all if None.

    Raises:
        ValueError: there is none, one is no dict, or a column is missing.
    """
    rows = _rows(items, "items", "dicts")
    for index, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise ValueError(
                f"items[{index}] is {_kind(row)}: an item must be a dict of its fields, {_EXAMPLE}"
            )
    if not rows:
        raise ValueError(f"there are no items to score: items is an empty {type(items).__name__}")
    return [_with_text_names(row) for row in (rows if fields is None else _select(rows, fields))]


def _with_text_names(row: JsonObject) -> JsonObject:
    """Return an item whose `id` and `group` are texts, also where a table has whole numbers."""
    numbers = {
        name: str(row[name])
        for name in ("id", "group")
        if isinstance(row.get(name), Integral) and not isinstance(row[name], bool)
    }
    return {**row, **numbers} if numbers else row


def single_item(item: Any) -> list[JsonObject]:
    """Return the items of a call with one.

    Raises:
        ValueError: it is no dict.
    """
    if not isinstance(item, Mapping):
        raise ValueError(
            f"item is {_kind(item)}: it must be a dict of its fields, {_EXAMPLE}; "
            "several items go to score()"
        )
    return [_with_text_names(item)]


def to_candidates(candidates: Any) -> list[Any]:
    """Return the candidates of a call, each a text or a dict of fields.

    Raises:
        ValueError: there is none, or one is neither.
    """
    rows = _rows(candidates, "candidates", "texts")
    for index, row in enumerate(rows):
        if not isinstance(row, (str, Mapping)):
            raise ValueError(
                f"candidates[{index}] is {_kind(row)}: a candidate must be a text, or a dict of "
                "the fields in which it differs"
            )
    if not rows:
        raise ValueError("there are no candidates to rank")
    return rows


def drawn_rows(drawn: Any) -> list[Any]:
    """Return the candidates that a function drew; there may be none.

    Raises:
        ValueError: it returned no list of them.
    """
    return _rows(drawn, "what draw returned", "candidates")


def to_run(run: Any, step: Any = None) -> JsonObject | None:
    """Return the `run` of a request, from a name or a dict, with the step.

    Raises:
        ValueError: it names no run, or gives two steps.
    """
    if run is None:
        if step is not None:
            raise ValueError("step is that of a run: name the run too, such as run='exp-17'")
        return None
    fields = {"id": run} if isinstance(run, str) else run
    if not isinstance(fields, Mapping) or not isinstance(fields.get("id"), str) or not fields["id"]:
        raise ValueError(_NO_RUN)
    if step is None:
        return fields
    if fields.get("step") not in (None, step):
        raise ValueError("step is given twice: as an argument and in run")
    return {**fields, "step": step}


def run_name(run: Any) -> str:
    """Return the name of a run.

    Raises:
        ValueError: it names none.
    """
    fields = to_run(run)
    if fields is None:
        raise ValueError(_NO_RUN)
    return str(fields["id"])


def check_model(model: Any) -> None:
    """Check that a model is named.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(model, str) or not model:
        kind = "empty" if model == "" else _kind(model)
        raise ValueError(f"model must be a name such as 'code' or 'code@2', is {kind}")


def check_options(options: Any) -> JsonObject | None:
    """Return the options unchanged.

    Raises:
        ValueError: they are no dict.
    """
    if options is not None and not isinstance(options, Mapping):
        raise ValueError(
            f"options must be a dict, such as {{'truncation': 'left'}}, is {_kind(options)}"
        )
    return options


def check_values(values: Any) -> JsonObject:
    """Return the values of telemetry unchanged.

    Raises:
        ValueError: they are no dict.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"values must be a dict of numbers by name, is {_kind(values)}")
    return values


def check_priority(priority: Any) -> None:
    """Check the name of a lane.

    Raises:
        ValueError: there is no such lane.
    """
    if priority is not None and priority not in get_args(Priority):
        raise ValueError(f"priority must be one of {', '.join(get_args(Priority))}")


def _rows(value: Any, name: str, wanted: str) -> list[Any]:
    """Return the elements of an iterable, or the rows of a table."""
    if isinstance(value, list):
        return value
    if isinstance(value, Mapping):
        raise ValueError(
            f"{name} is {_kind(value)}: give a list of {wanted}, [item] for a single one "
            "(of a dict of columns, one dict for each row)"
        )
    if isinstance(value, (str, bytes)) or value is None:
        raise ValueError(f"{name} is {_kind(value)}: give a list of {wanted}")
    if hasattr(value, "__aiter__"):
        raise ValueError(
            f"{name} is asynchronous: collect it first, [{name[:-1]} async for … in …]"
        )
    if hasattr(value, "to_pylist"):  # Arrow
        return list(value.to_pylist())
    if hasattr(value, "to_dicts"):  # polars
        return list(value.to_dicts())
    if hasattr(value, "to_dict") and hasattr(value, "columns"):  # pandas
        return list(value.to_dict("records"))
    try:
        return list(value)
    except TypeError:
        pass
    raise ValueError(f"{name} is {_kind(value)}, which has no rows: give a list of {wanted}")


def _select(rows: Sequence[JsonObject], fields: Columns) -> list[JsonObject]:
    if isinstance(fields, str) or not all(isinstance(name, str) for name in fields):
        raise ValueError('fields must be a dict of columns, such as {"prompt": "question"}')
    columns = fields if isinstance(fields, Mapping) else {name: name for name in fields}
    for index, row in enumerate(rows):
        for name, column in columns.items():
            if column not in row:
                raise ValueError(
                    f"items[{index}] has no {column!r}, from which fields takes {name!r}; "
                    f"it has: {', '.join(map(str, row))}"
                )
    return [{name: row[column] for name, column in columns.items()} for row in rows]


def _kind(value: Any) -> str:
    return "None" if value is None else _KINDS.get(type(value), f"of type {type(value).__name__}")
