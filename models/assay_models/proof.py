"""Proof, the interface of models whose numbers another process computes."""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from assay_models.base import Input, Raw


class Proof(Protocol):
    """A proof, repeated for as long as the model is served, that another process computes a model's
    numbers right. `unproven` is the reason why it does not hold, or None.

    `require` adds inputs whose raws `verify` must accept without a `CardError`. `due` returns when
    the proof must be repeated: on its schedule, or at once after a doubt. `prove` tries it, and
    raises nothing that another process can cause. Afterwards the model's fingerprint may be another
    one, because another engine was proven.
    """

    @property
    def unproven(self) -> str | None: ...

    def require(self, inputs: Sequence[Input], verify: Callable[[Sequence[Raw]], None]) -> None: ...

    async def due(self) -> None: ...

    async def prove(self) -> None: ...

    async def close(self) -> None: ...


@runtime_checkable
class Proven(Protocol):
    """A model that may be computed elsewhere; its `proof` is None where it is not."""

    @property
    def proof(self) -> Proof | None: ...
