"""Preparation of a request's items: validation and tokenization in a pool, or from a cache."""

import asyncio
import logging
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from itertools import chain
from typing import Any, ParamSpec, TypeVar

from pydantic import ValidationError

from assay.errors import InvalidRequest
from assay.scoring.prepared_cache import PreparedCache, PreparedItems, digest_of, prepared_items
from assay.types import VALUE_ERROR, InvalidValue, ItemFailure, field_name
from assay_models.base import Item, ItemError, Options, RewardModel
from assay_models.items import UNSCORABLE_MESSAGE, fields_hint

logger = logging.getLogger(__name__)

T = TypeVar("T")
P = ParamSpec("P")

Fields = Mapping[str, Any]

NAMELESS = Item()
MAX_PROBLEMS = 20
YIELD_EVERY = 128
"""Yield to the event loop after this many items of one request."""


class Preparer:
    """The preparer of requests' items.

    Args:
        cache: prepared items by digest.
        pool: the threads that run the models' `prepare`.
    """

    def __init__(self, cache: PreparedCache, pool: Executor) -> None:
        self._cache = cache
        self._pool = pool

    async def prepare(
        self,
        model: RewardModel,
        schema: type[Item],
        *,
        items: Sequence[Fields],
        options: Options,
        scope: bytes,
    ) -> tuple[list[PreparedItems], int]:
        """Return the prepared items, in order, and the number of entries that were not cached.

        Args:
            model: the model, whose `prepare` is called.
            schema: the class of the model's items.
            items: the wire's fields of each item.
            options: the request's options.
            scope: everything besides the items that `prepare` depends on.

        Raises:
            InvalidRequest: an item does not match the schema.
        """
        groups = _group(model, items)
        entries: list[Sequence[PreparedItems]] = []
        digests: list[bytes | None] = []
        for indices in groups:
            fields = [items[index] for index in indices]
            digest = digest_of(scope, fields) if self._cache.enabled else None
            digests.append(digest)
            entries.append(self._cached(digest, indices, fields))
            if len(entries) % YIELD_EVERY == 0:
                await asyncio.sleep(0)
        missing = [number for number, cached in enumerate(entries) if not cached]
        if missing:
            fresh = await self._prepare(
                model,
                schema,
                items=items,
                options=options,
                groups=[groups[number] for number in missing],
            )
            for number, prepared in zip(missing, fresh, strict=True):
                entries[number] = prepared
                self._keep(digests[number], prepared)
        return list(chain.from_iterable(entries)), len(missing)

    def _cached(
        self, digest: bytes | None, indices: tuple[int, ...], fields: Sequence[Fields]
    ) -> Sequence[PreparedItems]:
        entry = None if digest is None else self._cache.get(digest)
        if entry is None:
            return ()
        names = [_names(item) for item in fields]
        items = tuple([name for name in names if name is not None])
        if len(items) < len(fields):
            return ()
        return (PreparedItems(*entry[:4], indices, items),)  # several times as fast as `_replace`

    def _keep(self, digest: bytes | None, entries: Sequence[PreparedItems]) -> None:
        if digest is None or len(entries) > 1 or isinstance(entries[0].prepared, ItemFailure):
            return
        self._cache.put(digest, entries[0])

    async def _prepare(
        self,
        model: RewardModel,
        schema: type[Item],
        *,
        items: Sequence[Fields],
        options: Options,
        groups: Sequence[tuple[int, ...]],
    ) -> list[list[PreparedItems]]:
        """Return the entries of each group: one, and one more for each item that is invalid."""
        all_indices = sorted(index for indices in groups for index in indices)
        valid, failed = _validate(schema, {index: items[index] for index in all_indices})
        kept = [tuple(index for index in indices if index in valid) for indices in groups]
        grouped = [tuple(valid[index] for index in indices) for indices in kept]
        work = partial(_prepare_all, model, grouped, options)
        prepared = await asyncio.get_running_loop().run_in_executor(self._pool, work)
        return [
            [
                *(entry._replace(indices=rest, items=group) for entry in entries),
                *(failed[index] for index in indices if index in failed),
            ]
            for indices, rest, group, entries in zip(groups, kept, grouped, prepared, strict=True)
        ]


def catch_item_errors(step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | ItemFailure:
    """Run a step of a model's family; return its result, or the failure of its item."""
    try:
        return step(*args, **kwargs)
    except ItemError as error:
        return ItemFailure(error.code, error.detail)
    except Exception as error:  # noqa: BLE001 any text may make a tokenizer or a template raise; only its own item fails
        frame = traceback.extract_tb(error.__traceback__)[-1]
        kind = type(error).__name__
        logger.error("%s in %s, line %s of %s", kind, frame.name, frame.lineno, frame.filename)
        return ItemFailure("item_failed", f"the model raised {kind} on this item")


def _group(model: RewardModel, items: Sequence[Fields]) -> list[tuple[int, ...]]:
    """Return the indices of the items that are prepared together."""
    if model.sees == "item":
        return [(index,) for index in range(len(items))]
    groups: dict[object, list[int]] = {}
    for index, fields in enumerate(items):
        group = fields.get("group")
        groups.setdefault(group if isinstance(group, str) else index, []).append(index)
    return [tuple(group) for group in groups.values()]


def _names(fields: Fields) -> Item | None:
    """Return an item's `id` and `group`; None if they are malformed."""
    if "id" not in fields and "group" not in fields:
        return NAMELESS
    try:
        return Item(id=fields.get("id"), group=fields.get("group"))
    except ValidationError:
        return None


def _validate(
    schema: type[Item], items: Mapping[int, Fields]
) -> tuple[dict[int, Item], dict[int, PreparedItems]]:
    """Return the valid items, and the entries of those that fail alone.

    It ends once there are `MAX_PROBLEMS`.

    Raises:
        InvalidRequest: an item does not match the schema.
    """
    valid: dict[int, Item] = {}
    failed: dict[int, PreparedItems] = {}
    problems: list[dict[str, str]] = []
    hint: str | None = None
    for index, fields in items.items():
        try:
            valid[index] = schema.model_validate(fields)
        except ValidationError as error:
            failure = _failure(error)
            if failure is not None:
                names = _names(fields) or NAMELESS
                failed[index] = PreparedItems(failure, indices=(index,), items=(names,))
                continue
            problems.extend(_problems(index, fields, error))
            hint = hint or fields_hint(schema, [problem["loc"] for problem in error.errors()])
            if len(problems) >= MAX_PROBLEMS:
                break
    if problems:
        raise InvalidRequest(
            f"{problems[0]['field']}: {problems[0]['problem']}",
            hint=hint,
            problems=problems[:MAX_PROBLEMS],
        )
    return valid, failed


def _failure(error: ValidationError) -> ItemFailure | None:
    """Return the failure of an item that is wrong in its data; None if its shape is wrong.

    A field of several types has a problem for each of them, and one of its data explains the rest.
    """
    failures: dict[object, ItemFailure | None] = {}
    for problem in error.errors(include_url=False, include_context=False):
        field, value = problem["loc"][:1], problem["input"]
        if isinstance(value, InvalidValue):
            failures[field] = ItemFailure("invalid_json", f"{value.place}: {value.problem}")
        elif problem["type"] == UNSCORABLE_MESSAGE:
            failures[field] = ItemFailure("invalid_item", problem["msg"])
        else:
            failures.setdefault(field, None)
    found = [failure for failure in failures.values() if failure is not None]
    return found[0] if len(found) == len(failures) else None


def _problems(
    index: int, fields: Mapping[str, Any], error: ValidationError
) -> list[dict[str, str]]:
    return [
        {
            "field": f"items.{index}.{field_name(problem, problem['loc'], fields)}".rstrip("."),
            "problem": problem["msg"].removeprefix(VALUE_ERROR),
        }
        for problem in error.errors(include_url=False, include_context=False)
    ]


def _prepare_all(
    model: RewardModel, grouped: Sequence[Sequence[Item]], options: Options
) -> list[list[PreparedItems]]:
    """Return the entry of each group, and none of a group without items."""
    return [[_prepare_group(model, items, options)] if items else [] for items in grouped]


def _prepare_group(model: RewardModel, items: Sequence[Item], options: Options) -> PreparedItems:
    prepared = catch_item_errors(model.prepare, items, options)
    if isinstance(prepared, ItemFailure):
        return PreparedItems(prepared)
    return prepared_items(model.fingerprint, prepared)
