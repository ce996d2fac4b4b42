"""PreparedItems, and an in-memory cache of them."""

import hashlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from itertools import chain
from typing import Any, NamedTuple

import orjson
from cachetools import LRUCache

from assay.cache.keys import cache_key
from assay.metrics import Metrics
from assay.types import ItemFailure
from assay_models.base import Item, Prepared

ENTRY_BYTES = 320
MAX_DIGEST_BYTES, VALUE_BYTES = 1 << 20, 16
"""Items of more characters than the first have no digest; each of their values counts as so many
characters more. The digest is made in the event loop, which a longer text would hold."""
NAMES = frozenset(("id", "group"))
# Values of other types than JSON's could be encoded like a JSON value of another meaning.
STRICT = (
    orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_DATETIME
    | orjson.OPT_PASSTHROUGH_SUBCLASS
)


class PreparedItems(NamedTuple):
    """Items that are prepared together: one item, or a group for a model that scores groups.

    `prepared` is the result of `prepare`, or its failure. `keys` are the cache keys of its inputs,
    in order, and `tokens` the sum of their tokens. `size` is its bytes in the cache. `indices` are
    the items' positions in the request. For cached items, `items` hold only `id` and `group`.
    """

    prepared: Prepared | ItemFailure
    keys: tuple[bytes, ...] = ()
    tokens: int = 0
    size: int = 0
    indices: tuple[int, ...] = ()
    items: tuple[Item, ...] = ()


def prepared_items(fingerprint: str, prepared: Prepared) -> PreparedItems:
    """Return prepared items with their keys, tokens and size.

    Args:
        fingerprint: the model's fingerprint.
        prepared: the result of the model's `prepare`.
    """
    keys = tuple([cache_key(fingerprint, row.key) for row in prepared.inputs])
    tokens = sum([row.tokens for row in prepared.inputs])
    return PreparedItems(prepared, keys, tokens, ENTRY_BYTES + _footprint((prepared, keys)))


def digest_of(scope: bytes, items: Sequence[Mapping[str, Any]]) -> tuple[bytes | None, int]:
    """Return the digest of items without `id` and `group`, and their size in bytes.

    Of long items, and of fields that are not JSON, there is no digest, and the size is 0.

    Args:
        scope: everything else that `prepare` depends on.
        items: the wire's fields of the items that are prepared together.
    """
    if _is_long(items):
        return None, 0
    bare = [{name: fields[name] for name in fields if name not in NAMES} for fields in items]
    try:
        text = orjson.dumps(bare, option=STRICT)
    except TypeError:
        return None, 0
    content = len(scope).to_bytes(8, "big") + scope + text
    return hashlib.blake2b(content, digest_size=32).digest(), len(text)


def _is_long(items: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether items have more than `MAX_DIGEST_BYTES`; of longer ones it reads no more."""
    room = MAX_DIGEST_BYTES
    pending: list[Any] = []
    for item in items:  # most are flat: this loop is the hot path
        for name, value in item.items():
            if type(value) is str and type(name) is str:
                room -= len(name) + len(value)
            else:
                pending += (name, value)
        room -= VALUE_BYTES * len(item)
    while pending and room >= 0:
        value = pending.pop()
        if isinstance(value, str):
            room -= len(value)
        elif isinstance(value, dict | list):
            room -= VALUE_BYTES * len(value)
            if room >= 0:
                pending.extend(value)
                if isinstance(value, dict):
                    pending.extend(value.values())
    return room < 0


class PreparedCache:
    """A cache of the most recently used results of `prepare`, within a bound in bytes.

    `prepare` is pure, so the same fields under the same options need no second templating and
    tokenization. The keys are digests, so that the items' texts are not stored.

    Args:
        max_bytes: the bound on all entries together; 0 disables the cache.
        metrics: the gauge of the cache's bytes.
    """

    def __init__(self, max_bytes: int, metrics: Metrics) -> None:
        self._max_bytes = max_bytes
        self._entries: LRUCache[bytes, PreparedItems] = LRUCache(max_bytes, getsizeof=_size)
        self._bytes = metrics.prepared_bytes

    @property
    def enabled(self) -> bool:
        """Whether the cache stores anything."""
        return self._max_bytes > 0

    def get(self, digest: bytes) -> PreparedItems | None:
        """Return the entry of a digest; it becomes the most recently used."""
        try:
            return self._entries[digest]
        except KeyError:
            return None

    def put(self, digest: bytes, prepared: PreparedItems) -> None:
        """Store an entry without its indices and items, evicting others beyond the bound."""
        if prepared.size <= self._max_bytes:
            self._entries[digest] = prepared._replace(indices=(), items=())
            self._bytes.set(self._entries.currsize)

    def clear(self) -> None:
        """Drop all entries: those of a model that was unloaded cannot be distinguished."""
        self._entries.clear()
        self._bytes.set(0)


def _size(prepared: PreparedItems) -> int:
    return prepared.size


def _footprint(root: object) -> int:
    """Return the bytes of a value and of all objects that it contains, each once."""
    seen: dict[int, object] = {}
    pending = [root]
    while pending:
        value = pending.pop()
        if id(value) not in seen:
            seen[id(value)] = value
            pending.extend(_parts(value))
    return sum(map(sys.getsizeof, seen.values()))


def _parts(value: object) -> Iterable[object]:
    if isinstance(value, str | bytes | int | float):
        return ()
    if isinstance(value, tuple | list | set | frozenset):
        return value
    if isinstance(value, Mapping):
        return chain(value.keys(), value.values())
    if is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name) for field in fields(value)]
    return ()
