"""TieredCache: several caches, fastest first."""

from collections.abc import Mapping, Sequence

from assay.cache.memory import ScoreCache
from assay_models.base import Raw


class TieredCache:
    """A cache of several tiers, fastest first; raws are copied into the faster tiers."""

    def __init__(self, tiers: Sequence[ScoreCache]) -> None:
        self._tiers = tuple(tiers)

    async def get_many(self, keys: Sequence[bytes]) -> dict[bytes, Raw]:
        """Return the raws that any tier stores; each tier is asked once, for the missing keys."""
        hits: dict[bytes, Raw] = {}
        for level, tier in enumerate(self._tiers):
            missing = [key for key in keys if key not in hits]
            if not missing:
                break
            known = await tier.get_many(missing)
            for faster in self._tiers[:level]:
                await faster.put_many(known)
            hits.update(known)
        return hits

    async def put_many(self, raws: Mapping[bytes, Raw]) -> None:
        """Store raws in every tier."""
        for tier in self._tiers:
            await tier.put_many(raws)

    async def close(self) -> None:
        """Close every tier."""
        for tier in self._tiers:
            await tier.close()
