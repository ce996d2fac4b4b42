"""Proof, the interface of models whose numbers another process computes."""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from assay_models.base import Input, Raw


class Proof(Protocol):
    """A proof, repeated while the model is served, that another process computes its numbers right.

    After a proof the model's fingerprint may be another one, because another engine was proven.
    """

    @property
    def unproven(self) -> str | None:
        """The reason why the proof does not hold, or None."""
        ...

    def require(self, inputs: Sequence[Input], verify: Callable[[Sequence[Raw]], None]) -> None:
        """Add inputs whose raws `verify` must accept without a `CardError`."""
        ...

    async def due(self) -> None:
        """Return when the proof must be repeated: on its schedule, or at once after a doubt."""
        ...

    async def prove(self) -> None:
        """Try the proof once. Nothing that the other process does makes this raise."""
        ...

    async def close(self) -> None:
        """Close the connections to the other process."""
        ...


@runtime_checkable
class Proven(Protocol):
    """A model that may be computed elsewhere."""

    @property
    def proof(self) -> Proof | None:
        """The proof of its numbers; None where they are computed here."""
        ...
