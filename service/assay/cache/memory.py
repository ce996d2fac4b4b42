"""ScoreCache, the interface of all caches of raws, and MemoryCache."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from cachetools import LRUCache

from assay.metrics import Metrics, TierSeries
from assay_models.base import Raw

ENTRY_BYTES = 320
"""Bytes of one entry besides its numbers: key, tuple and the map's own share."""
NUMBER_BYTES = 32


class ScoreCache(Protocol):
    """A store of raws. No method raises: a failure inside is a miss, and counted."""

    async def get_many(self, keys: Sequence[bytes]) -> dict[bytes, Raw]:
        """Return the raws that are stored, in one round trip."""
        ...

    async def put_many(self, raws: Mapping[bytes, Raw]) -> None:
        """Store raws. May return before they are stored."""
        ...

    async def close(self) -> None:
        """Finish pending writes and release connections."""
        ...


class MemoryCache:
    """A cache of the most recently used raws, within a bound in bytes.

    Args:
        max_bytes: the bound on all entries together.
        metrics: counters of lookups and bytes.
    """

    def __init__(self, max_bytes: int, metrics: Metrics) -> None:
        self._max_bytes = max_bytes
        self._raws: LRUCache[bytes, Raw] = LRUCache(max_bytes, getsizeof=_size)
        self._series = TierSeries(metrics, "memory")
        self._bytes = metrics.cache_bytes

    async def get_many(self, keys: Sequence[bytes]) -> dict[bytes, Raw]:
        """Return the raws that are stored; each becomes the most recently used."""
        hits: dict[bytes, Raw] = {}
        for key in keys:
            try:
                hits[key] = self._raws[key]
            except KeyError:
                continue
        self._series.count(hits=len(hits), misses=len(keys) - len(hits))
        return hits

    async def put_many(self, raws: Mapping[bytes, Raw]) -> None:
        """Store raws, evicting the least recently used ones beyond the bound."""
        for key, raw in raws.items():
            if _size(raw) <= self._max_bytes:
                self._raws[key] = raw
        self._bytes.set(self._raws.currsize)

    async def close(self) -> None:
        """Do nothing: there is nothing to release."""


def _size(raw: Raw) -> int:
    return ENTRY_BYTES + NUMBER_BYTES * len(raw)
