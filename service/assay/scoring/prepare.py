"""Preparation of a request's items: validation and tokenization in a pool, or from a cache."""

import asyncio
import logging
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from sys import getsizeof
from typing import Any, ParamSpec, TypeVar

from pydantic import ValidationError

from assay.errors import MAX_PROBLEMS, InvalidRequest, RequestTooLarge
from assay.scoring.preparation_pool import PreparationPool
from assay.scoring.prepared_cache import PreparedCache, PreparedItems, digest_of, prepared_items
from assay.types import VALUE_ERROR, InvalidValue, ItemFailure, Lane, field_name
from assay_models.base import Item, ItemError, Options, RewardModel
from assay_models.items import UNSCORABLE_MESSAGE, fields_hint, strings
from assay_models.preemption import preempt

logger = logging.getLogger(__name__)

T = TypeVar("T")
P = ParamSpec("P")

Fields = Mapping[str, Any]

NAMELESS = Item()
YIELD_EVERY, YIELD_BYTES = 128, 1 << 20
"""Yield to the event loop after this many items, or bytes, of one request."""
YIELD_TEXTS = 16_384
"""Yield to the event loop after this many texts of one item that has no digest."""
MAX_REQUEST_INPUTS = 65_536
"""The most forward passes of one request: pairs of a claim and a chunk of evidence, mostly."""


class RequestBudget:
    """The tokens and inputs that one request may have, counted while they are made.

    Args:
        max_tokens: the limit of its tokens.
    """

    def __init__(self, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self._tokens = self._inputs = self._wasted_tokens = 0
        self._unfinished_tokens = self._unfinished_inputs = 0

    def start(self, cached: Sequence[PreparedItems]) -> None:
        """Count the cached items; what a preparation made before it began again is wasted.

        Raises:
            RequestTooLarge: the request has too many tokens or inputs.
        """
        known = sum([entry.tokens for entry in cached])
        self._wasted_tokens += max(0, self._tokens - known) + self._unfinished_tokens
        self._tokens = self._inputs = 0
        self._unfinished_tokens = self._unfinished_inputs = 0
        self.add(cached)

    @property
    def made(self) -> int:
        """The tokens made so far, those of items that failed or are not finished included."""
        return self._tokens + self._wasted_tokens + self._unfinished_tokens

    def add(self, entries: Sequence[PreparedItems]) -> None:
        """Count prepared items, instead of what was counted while the last of them was made.

        Raises:
            RequestTooLarge: the request has too many tokens or inputs.
        """
        tokens = sum([entry.tokens for entry in entries])
        self._tokens += tokens
        self._wasted_tokens += 0 if tokens else self._unfinished_tokens
        self._inputs += sum([len(entry.keys) for entry in entries])
        self._unfinished_tokens = self._unfinished_inputs = 0
        self._check()

    def add_unfinished(self, tokens: int, inputs: int) -> None:
        """Count inputs of an item that is not finished.

        Raises:
            RequestTooLarge: the request has too many tokens or inputs.
        """
        self._unfinished_tokens += tokens
        self._unfinished_inputs += inputs
        self._check()

    def _check(self) -> None:
        tokens = self._tokens + self._unfinished_tokens
        inputs = self._inputs + self._unfinished_inputs
        if tokens > self._max_tokens:
            raise _too_large(tokens, "tokens", self._max_tokens)
        if inputs > MAX_REQUEST_INPUTS:
            raise _too_large(inputs, "pairs or other inputs of the model", MAX_REQUEST_INPUTS)


@dataclass(slots=True)
class PrepareCall:
    """Everything besides the items that decides how one request is prepared.

    `fingerprint` is the model's when the request came: the cache keys of all its inputs have it,
    though another engine may be proven meanwhile. `scope` is all that `prepare` depends on besides
    the items. `deadline` is the clock's time.
    """

    model: RewardModel
    fingerprint: str
    schema: type[Item]
    options: Options
    scope: bytes
    budget: RequestBudget
    lane: Lane
    deadline: float


class Preparer:
    """The preparer of requests' items.

    Args:
        cache: prepared items by digest.
        pool: the threads that run the models' `prepare`.
    """

    def __init__(self, cache: PreparedCache, pool: PreparationPool) -> None:
        self._cache = cache
        self._pool = pool

    async def prepare(
        self, call: PrepareCall, items: Sequence[Fields]
    ) -> tuple[list[PreparedItems], int]:
        """Return the prepared items, in order, and the number of entries that were not cached.

        Args:
            call: the model, and the request's choices.
            items: the wire's fields of each item.

        Raises:
            InvalidRequest: an item does not match the schema.
            RequestTooLarge: the request has too many tokens or inputs.
            Overloaded, DeadlineExceeded, ShuttingDown: see `PreparationPool.run`.
        """
        groups = _group(call.model, items)
        entries: list[Sequence[PreparedItems]] = []
        missing: dict[int, bytes | None] = {}
        size = unyielded = 0
        for number, indices in enumerate(groups):
            fields = [items[index] for index in indices]
            digest, count = digest_of(call.scope, fields)
            if digest is None:
                count = await self._measure(fields, call.lane)
            cached = self._cached(digest, indices, fields) if self._cache.enabled else ()
            entries.append(cached)
            if not cached:
                missing[number] = digest
                size += count
            unyielded += count
            if (number + 1) % YIELD_EVERY == 0 or unyielded > YIELD_BYTES:
                self._pool.check_size(size, call.lane)  # one text may be that of every item
                unyielded = 0
                await asyncio.sleep(0)
        known = [entry for cached in entries for entry in cached]
        call.budget.start(known)
        if missing:
            unknown = [groups[number] for number in missing]
            work = partial(_prepare, call, items, unknown, known)
            fresh = await self._pool.run(
                work,
                spend=call.budget.add_unfinished,
                size=size,
                lane=call.lane,
                deadline=call.deadline,
            )
            for (number, digest), prepared in zip(missing.items(), fresh, strict=True):
                entries[number] = prepared
                self._keep(digest, prepared)
        return list(chain.from_iterable(entries)), len(missing)

    async def _measure(self, fields: Sequence[Fields], lane: Lane) -> int:
        """Return the bytes of items that have no digest; a long one has many texts, or a long one.

        Raises:
            RequestTooLarge: they are more than may ever wait.
        """
        size = 0
        for number, text in enumerate(map(str, strings(fields)), 1):  # names are any in Python
            size += len(text) if text.isascii() else getsizeof(text)
            if number % YIELD_TEXTS == 0:
                self._pool.check_size(size, lane)
                await asyncio.sleep(0)
        self._pool.check_size(size, lane)
        return size

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


def _too_large(amount: int, unit: str, limit: int) -> RequestTooLarge:
    return RequestTooLarge(f"{amount} {unit}, the limit is {limit}", hint="split the request")


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


def _prepare(
    call: PrepareCall,
    items: Sequence[Fields],
    groups: Sequence[tuple[int, ...]],
    cached: Sequence[PreparedItems],
) -> list[list[PreparedItems]]:
    """Return the entries of each group: one, and one more for each item that is invalid."""
    call.budget.start(cached)
    all_indices = sorted(index for indices in groups for index in indices)
    valid, failed = _validate(call.schema, {index: items[index] for index in all_indices})
    return [_prepare_indices(call, indices, valid, failed) for indices in groups]


def _prepare_indices(
    call: PrepareCall,
    indices: tuple[int, ...],
    valid: Mapping[int, Item],
    failed: Mapping[int, PreparedItems],
) -> list[PreparedItems]:
    entries = [failed[index] for index in indices if index in failed]
    kept = tuple(index for index in indices if index in valid)
    if not kept:
        return entries
    preempt.get()(0, 0)
    group = tuple(valid[index] for index in kept)
    prepared = _prepare_group(call, group)
    call.budget.add([prepared])
    return [prepared._replace(indices=kept, items=group), *entries]


def _prepare_group(call: PrepareCall, items: Sequence[Item]) -> PreparedItems:
    prepared = catch_item_errors(call.model.prepare, items, call.options)
    if isinstance(prepared, ItemFailure):
        return PreparedItems(prepared)
    return prepared_items(call.fingerprint, prepared)
