"""Proofs: an engine's proof, repeated for as long as its model is served."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

from assay_models.base import Options, Prepared, Raw, RewardModel
from assay_models.card import CardError, Example
from assay_models.proof import Proof, Proven


class Proofs:
    """The proof of one model, tried when it is due.

    Args:
        proof: the model's proof, which was tried once.
        on_proven: called after each proof that holds; the fingerprint may be another one.
        on_death: called with the reason if the proof can no longer be tried.
    """

    def __init__(
        self, proof: Proof, on_proven: Callable[[], None], on_death: Callable[[str], None]
    ) -> None:
        self.was_proven = proof.unproven is None
        self._proof = proof
        self._on_proven = on_proven
        self._on_death = on_death
        self._task: asyncio.Task[None] | None = None
        self._tried = asyncio.Event()

    @property
    def unproven(self) -> str | None:
        """The reason why the model's numbers are not served; None while they are."""
        return self._proof.unproven

    async def start(self, timeout: float) -> None:
        """Start to repeat the proof; return once it was tried, or after `timeout` seconds."""
        self._task = asyncio.create_task(self._repeat())
        self._task.add_done_callback(self._on_stop)
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._tried.wait()

    async def close(self) -> None:
        """End the task and the proof's connections."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await self._proof.close()

    async def _repeat(self) -> None:
        while True:
            await self._proof.prove()
            if self._proof.unproven is None:
                self.was_proven = True
                self._on_proven()
            self._tried.set()
            await self._proof.due()

    def _on_stop(self, task: asyncio.Task[None]) -> None:
        self._tried.set()
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._on_death(f"the proof of its engine raised {type(error).__name__}")


def proof_of(model: RewardModel) -> Proof | None:
    """Return the proof of a model that an engine computes; None for any other."""
    return model.proof if isinstance(model, Proven) else None


def create_proofs(
    model: RewardModel,
    example: Example | None,
    probe: Prepared,
    *,
    on_proven: Callable[[], None],
    on_death: Callable[[str], None],
) -> Proofs | None:
    """Return the proofs of a model that an engine computes, to be started.

    Args:
        model: the model; None is returned for one that is computed here.
        example: the card's example, which becomes a part of the proof.
        probe: the prepared example, or the family's.
        on_proven: see `Proofs`.
        on_death: see `Proofs`.
    """
    proof = proof_of(model)
    if proof is None:
        return None
    if example is not None and probe.inputs:
        _require_example(proof, model, example, probe)
    return Proofs(proof, on_proven, on_death)


def _require_example(proof: Proof, model: RewardModel, example: Example, probe: Prepared) -> None:
    def verify(raws: Sequence[Raw]) -> None:
        (score,) = model.finish(probe, raws, Options())
        if not abs(score.score - example.score) <= example.tolerance:
            raise CardError(
                f"makes the card's example {score.score:.6g}, the card says "
                f"{example.score:.6g} within {example.tolerance:g}"
            )

    proof.require(probe.inputs, verify)
