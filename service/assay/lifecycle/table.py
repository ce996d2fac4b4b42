"""ModelTable: the served models, the default version of each name, shadows and pinned runs."""

import asyncio
from collections.abc import Iterable, Mapping

from cachetools import LRUCache

from assay.errors import ModelNotFound
from assay.served_model import Ready, ServedModel

MAX_PINS = 10_000
"""Runs, by caller and bare name, whose version is remembered; the least recent is forgotten."""


class ModelTable:
    """The models that requests can name.

    It is changed only in the event loop, and each change replaces the mappings at once: a request
    sees all of a change or nothing of it. The request path reads the attributes and calls methods
    only where a model has shadows, or a run names a model without its version.

    Args:
        models: the models that the server starts with. The highest version of a name is its
            default.
    """

    def __init__(self, models: Iterable[ServedModel] = ()) -> None:
        self.names: Mapping[str, ServedModel] = {}
        """The models by `name@version`, and the default versions by bare name."""
        self.shadowed: Mapping[str, tuple[ServedModel, ...]] = {}
        """The shadows of each model that has any, by its `name@version`."""
        self.unloading: Mapping[str, ServedModel] = {}
        """The models that finish what they admitted, by `name@version`; no request can name one."""
        self._required: frozenset[str] = frozenset()
        self._idle: dict[ServedModel, asyncio.Future[None]] = {}
        self._pins: LRUCache[tuple[str, str, str], str] = LRUCache(MAX_PINS)
        for served in sorted(models, key=lambda served: served.card.version):
            self.add(served, default=True, required=True)
        self._first_names = frozenset(served.card.name for served in self.models())

    def models(self) -> list[ServedModel]:
        """Return all models that requests can name, by id."""
        return sorted({*self.names.values()}, key=lambda served: served.id)

    def required(self) -> list[ServedModel]:
        """Return the models without which the server is not ready.

        A shadow is none of them, and a model that was loaded later is one once it was ready.
        """
        return [served for served in self.models() if served.id in self._required]

    def scaling_tokens(self) -> int:
        """Return the tokens that wait in all models but shadows, whose work may be dropped."""
        return sum(
            served.state.batcher.pending_tokens
            for served in self.models()
            if isinstance(served.state, Ready) and self.primary_of(served.id) is None
        )

    def unnamed(self) -> list[ServedModel]:
        """Return the models that a request without a name may mean, the default versions.

        They are those of the server's start, as long as any of them is served: a model that is
        loaded later has to be named.
        """
        defaults = [served for served in self.models() if self.is_default(served)]
        primary = [served for served in defaults if self.primary_of(served.id) is None]
        return [s for s in primary if s.card.name in self._first_names] or primary

    def is_default(self, served: ServedModel) -> bool:
        """Return whether the bare name of a model refers to it."""
        return self.names.get(served.card.name) is served

    def others_of(self, served: ServedModel) -> list[str]:
        """Return the ids of the other versions of a model."""
        return [
            other.id
            for other in self.models()
            if other.card.name == served.card.name and other is not served
        ]

    def primary_of(self, model: str) -> str | None:
        """Return the id of the model that this one shadows; None if it shadows none."""
        for primary, shadows in self.shadowed.items():
            if any(shadow.id == model for shadow in shadows):
                return primary
        return None

    def add(
        self,
        served: ServedModel,
        *,
        default: bool = False,
        required: bool = False,
        shadow_of: str | None = None,
    ) -> None:
        """Add a model, in the place of one that has the same id.

        It becomes the default of its bare name if it is to, or if the name has none.
        """
        names = {**self.names, served.id: served}
        if default or served.card.name not in names:
            names[served.card.name] = served
        if required:
            self.require(served)
        if shadow_of is not None:
            shadows = (*self.shadowed.get(shadow_of, ()), served)
            self.shadowed = {**self.shadowed, shadow_of: shadows}
        self.names = names

    def promote(self, served: ServedModel) -> None:
        """Make a model the default of its bare name, and no shadow any more."""
        self._end_shadow(served)
        self.require(served)
        self.names = {**self.names, served.card.name: served}

    def require(self, served: ServedModel) -> None:
        """Count a model among those without which the server is not ready."""
        self._required |= {served.id}

    def remove(self, served: ServedModel) -> None:
        """Take a model out, so that no request can name it; it is being unloaded from then on."""
        self._end_shadow(served)
        self._required -= {served.id}
        self.unloading = {**self.unloading, served.id: served}
        self.names = {name: other for name, other in self.names.items() if other is not served}

    def forget(self, served: ServedModel) -> None:
        """Forget a model that was unloaded."""
        self.unloading = {
            name: other for name, other in self.unloading.items() if other is not served
        }

    async def idle(self, served: ServedModel, timeout: float) -> None:
        """Wait until no request uses a removed model, at most `timeout` seconds."""
        if served.in_flight:
            idle = self._idle[served] = asyncio.get_running_loop().create_future()
            await asyncio.wait({idle}, timeout=timeout)
            del self._idle[served]

    def leave(self, served: ServedModel) -> None:
        """Note that a request has ended that used a model; its id may be another one's by now."""
        idle = self._idle.get(served)
        if idle is not None and not served.in_flight and not idle.done():
            idle.set_result(None)

    def version_for(self, run: str, default: ServedModel, caller: str = "") -> ServedModel:
        """Return the version with which a caller's run that names the bare name is scored.

        It is the one that the run began with while that is served, and else the default.
        """
        key = caller, run, default.card.name
        pinned = self.names.get(self._pins.get(key, ""))
        if pinned is not None:
            return pinned
        if isinstance(default.state, Ready):
            self._pins[key] = default.id
        return default

    def not_found(self, reference: str) -> ModelNotFound:
        """Return the error for a name that no served model has."""
        known = ", ".join(served.id for served in self.models()) or "none"
        detail = f"no model {reference!r} is served"
        if reference in self.unloading:
            detail = f"{reference} is being unloaded"
        return ModelNotFound(detail, hint=f"served: {known}")

    def _end_shadow(self, served: ServedModel) -> None:
        left = {
            primary: tuple(shadow for shadow in shadows if shadow is not served)
            for primary, shadows in self.shadowed.items()
        }
        self.shadowed = {primary: shadows for primary, shadows in left.items() if shadows}
