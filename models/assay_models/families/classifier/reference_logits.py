"""ReferenceLogits: logits by plain Transformers, in a process of its own that ends afterwards.

The server then holds neither torch nor the weights.
"""

import asyncio
import importlib.util
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from assay_models.base import Input, Raw
from assay_models.card import CardError, ModelCard
from assay_models.families.classifier.options import ClassifierOptions
from assay_models.repository import ModelFiles, missing_weights, weight_names

MAX_WEIGHT_BYTES = 4 << 30
"""Larger checkpoints are not computed here: in fp32 they may not fit beside the server."""
_TIMEOUT_SECONDS = 600.0
_PROGRAM = "assay_models.families.classifier.plain_transformers"


@dataclass(slots=True)
class ReferenceLogits:
    """Plain Transformers on a checkpoint's own weights, in fp32, one unpadded row at a time."""

    model: str
    folder: Path
    labels: int | None
    _known: dict[bytes, Raw] = field(default_factory=dict)

    @classmethod
    def of(
        cls, card: ModelCard, files: ModelFiles, options: ClassifierOptions
    ) -> "ReferenceLogits | None":
        """Return the reference of a card, or None: its weights are not in a folder here, are
        large, or there is no torch, or `[engine] parity` is off."""
        assert card.engine is not None
        folder = files.weights
        if card.engine.parity == "off" or folder is None or not _are_small(folder):
            return None
        if importlib.util.find_spec("torch") is None:
            return None
        labels = options.num_labels or (len(options.labels) if options.labels else None)
        return cls(card.id, folder, labels)

    async def logits(self, inputs: Sequence[Input]) -> list[Raw]:
        """Compute the logits of each input; those of inputs that were computed before are kept.

        Raises:
            CardError: the weights cannot be read, or the process took too long.
        """
        new = [row for row in inputs if row.key not in self._known]
        if new:
            raws = await self._compute(new)
            self._known |= {row.key: raw for row, raw in zip(new, raws, strict=True)}
        return [self._known[row.key] for row in inputs]

    async def _compute(self, inputs: Sequence[Input]) -> list[Raw]:
        rows = [(row.payload.ids.tolist(), _list(row.payload.type_ids)) for row in inputs]
        request = {"folder": str(self.folder), "labels": self.labels, "rows": rows}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", _PROGRAM),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )
        try:
            output, errors = await asyncio.wait_for(
                process.communicate(json.dumps(request).encode()), _TIMEOUT_SECONDS
            )
        except TimeoutError:
            raise self._error(f"took more than {_TIMEOUT_SECONDS:g} seconds") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            last = errors.decode(errors="replace").strip().rsplit("\n", 1)[-1]
            raise self._error(f"failed: {last[:400]}")
        return [tuple(raw) for raw in json.loads(output)]

    def _error(self, reason: str) -> CardError:
        return CardError(
            f"{self.model}: plain Transformers on the weights in {self.folder} {reason}. Mend the "
            'weights, or leave the comparison out with [engine] parity = "off"'
        )


def _are_small(folder: Path) -> bool:
    try:
        if missing_weights(folder) is not None:
            return False
        sizes = [(folder / name).stat().st_size for name in weight_names(folder)]
    except (OSError, ValueError):
        return False
    return sum(sizes) <= MAX_WEIGHT_BYTES


def _list(ids: "Sequence[int] | None") -> list[int] | None:
    return None if ids is None else list(ids)
