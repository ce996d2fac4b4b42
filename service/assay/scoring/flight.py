"""Flight: the inputs of one request, of which other replicas may compute some at this moment."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from assay.batching.entry import Outcome
from assay.cache.flights import SharedFlights
from assay.errors import AssayError
from assay.types import Clock
from assay_models.base import Input, Raw

Keyed = tuple[bytes, Input]


@dataclass(frozen=True, slots=True)
class Flight:
    """The computation of one request's inputs, each by the first replica that needs it.

    `compute` computes inputs here. `lengths` are those of the model's raws, if any are known: a raw
    of another length is not used. `deadline` is of `clock`.
    """

    flights: SharedFlights
    compute: Callable[[Sequence[Keyed]], Awaitable[list[Outcome]]]
    lengths: AbstractSet[int]
    deadline: float
    clock: Clock

    async def outcomes(self, inputs: Sequence[Keyed]) -> list[Outcome]:
        """Return the outcomes of keyed inputs, in order.

        Raises:
            AssayError: the request cannot be served; as the batcher says.
        """
        began = self.clock()
        own: dict[int, Outcome] = {}

        async def compute(keys: Collection[bytes]) -> Mapping[bytes, Raw]:
            wanted = frozenset(keys)  # as a list of a thousand keys it would hold the event loop
            numbers = [n for n, (key, _) in enumerate(inputs) if key in wanted]
            computed = await self.compute([inputs[n] for n in numbers])
            own.update(zip(numbers, computed, strict=True))
            values = {inputs[n][0]: own[n].value for n in numbers}
            return {k: raw for k, raw in values.items() if not isinstance(raw, AssayError)}

        keys = list(dict.fromkeys(key for key, _ in inputs))
        raws = await self.flights.run(keys, self.deadline, compute, self._is_valid)
        waited = self.clock() - began
        return [
            own[n] if n in own else Outcome(raws[key], "shared", waited)
            for n, (key, _) in enumerate(inputs)
        ]

    def _is_valid(self, raw: Raw) -> bool:
        return not self.lengths or len(raw) in self.lengths
