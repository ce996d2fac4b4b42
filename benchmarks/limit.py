"""What the machine could do without any server: forward passes in a bare loop, all cores.

Run as `python -m benchmarks.limit KIND WEIGHTS DTYPE`, KIND `transformers` (plain Transformers over
batches of a length) or `assay` (the forward pass of Assay's own family). It reads orders, one line
of JSON each, and answers each with a line of JSON; between orders it sleeps.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from benchmarks.texts import Text, from_plain

SIZES = (1, 2, 4, 8, 16, 32, 64)
TOKENS = (512, 1024, 2048, 4096, 8192, 16_384)


class Engine(Protocol):
    """A way to compute."""

    @property
    def choices(self) -> Sequence[int]:
        """Bounds to try."""

    def rows(self, texts: Sequence[Text]) -> list[Any]:
        """Texts made ready, so that the loop times nothing but forward passes."""

    def batches(self, rows: Sequence[Any], bound: int) -> Iterator[Sequence[Any]]:
        """Rows in batches of that bound."""

    def forward(self, batch: Sequence[Any]) -> list[float]:
        """The scores of a batch."""


class TransformersEngine:
    """Plain Transformers; a batch is bounded by its rows."""

    choices = SIZES

    def __init__(self, weights: str, dtype: str) -> None:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        self._tokenizer: Any = AutoTokenizer.from_pretrained(weights)
        loaded: Any = AutoModelForSequenceClassification.from_pretrained(
            weights, dtype=getattr(torch, dtype)
        )
        self._model = loaded.eval()

    def rows(self, texts: Sequence[Text]) -> list[Any]:
        """Token ids of each text."""
        return [self._tokenizer(text.prompt, text.response) for text in texts]

    def batches(self, rows: Sequence[Any], bound: int) -> Iterator[Sequence[Any]]:
        """`bound` rows at a time."""
        for start in range(0, len(rows), bound):
            yield rows[start : start + bound]

    def forward(self, batch: Sequence[Any]) -> list[float]:
        """The logits of a padded batch."""
        fields = {name: [row[name] for row in batch] for name in batch[0]}
        inputs = self._tokenizer.pad(fields, return_tensors="pt")
        with torch.inference_mode():
            scores: list[float] = self._model(**inputs).logits[:, 0].float().tolist()
        return scores


class AssayEngine:
    """The family that Assay loads; a batch is bounded by what it says the batch costs."""

    choices = TOKENS

    def __init__(self, weights: str, dtype: str) -> None:
        from assay_models.registry import Runtime, family_of
        from assay_models.repository import ModelRepository

        repository = ModelRepository([Path(weights).parent])
        entry = repository.find(repository.cards()[0].id)
        family = family_of(entry.card)
        self._model: Any = family.load(entry.card, repository.locate(entry), Runtime(dtype=dtype))

    def rows(self, texts: Sequence[Text]) -> list[Any]:
        """Prepared inputs."""
        from assay_models.base import Options
        from assay_models.items import TextItem

        items = [TextItem(prompt=text.prompt, response=text.response) for text in texts]
        return [self._model.prepare([item], Options()).inputs[0] for item in items]

    def batches(self, rows: Sequence[Any], bound: int) -> Iterator[Sequence[Any]]:
        """As many rows at a time as cost no more than the bound; one at least."""
        batch: list[Any] = []
        for row in rows:
            if batch and self._model.cost([*batch, row]) > bound:
                yield batch
                batch = []
            batch.append(row)
        if batch:
            yield batch

    def forward(self, batch: Sequence[Any]) -> list[float]:
        """The raws of a batch."""
        return [raw[0] for raw in self._model.predict(batch)]


class Loop:
    """Orders carried out over one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._rows: list[Any] = []
        self._truth: list[float] = []
        self._tokens = 0

    def take(self, order: dict[str, Any]) -> dict[str, Any]:
        """Carry out one order."""
        orders: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "texts": self._texts,
            "search": self._search,
            "measure": self._measure,
            "single": self._single,
        }
        return orders[order["do"]](order)

    def _texts(self, order: dict[str, Any]) -> dict[str, Any]:
        """Make texts ready: sorted by length, unless they are groups that belong together."""
        paired = list(zip(from_plain(order["texts"]), order["truth"], strict=True))
        if order["sort"]:
            paired.sort(key=lambda pair: pair[0].tokens)
        self._rows = self._engine.rows([text for text, _ in paired])
        self._truth = [score for _, score in paired]
        self._tokens = sum(text.tokens for text, _ in paired)
        return {"items": len(paired)}

    def _search(self, order: dict[str, Any]) -> dict[str, Any]:
        """The bound with the highest rate on some of the texts, and the rate at each bound."""
        rows = self._rows[: order["first"] : order["every"]]
        self._engine.forward(rows[:1])
        rates: dict[int, float] = {}
        cuts: list[list[int]] = []
        for bound in self._engine.choices:
            batches = list(self._engine.batches(rows, bound))
            cut = [len(batch) for batch in batches]
            if cut in cuts:
                continue
            cuts.append(cut)
            began = time.perf_counter()
            for batch in batches:
                self._engine.forward(batch)
            rates[bound] = len(rows) / (time.perf_counter() - began)
        return {"best": max(rates, key=lambda bound: rates[bound]), "rates": rates}

    def _measure(self, order: dict[str, Any]) -> dict[str, Any]:
        """All texts once, at a bound."""
        batches = list(self._engine.batches(self._rows, order["bound"]))
        began = time.perf_counter()
        scores = [score for batch in batches for score in self._engine.forward(batch)]
        seconds = time.perf_counter() - began
        far = (abs(score - true) for score, true in zip(scores, self._truth, strict=True))
        return {
            "items_per_second": len(scores) / seconds,
            "tokens_per_second": self._tokens / seconds,
            "seconds": seconds,
            "forwards": len(batches),
            "largest_difference": max(far),
        }

    def _single(self, order: dict[str, Any]) -> dict[str, Any]:
        """One row again and again, alone."""
        row = self._engine.rows(from_plain(order["texts"]))
        times = []
        ends = time.perf_counter() + order["seconds"]
        while (began := time.perf_counter()) < ends:
            self._engine.forward(row)
            times.append(1e3 * (time.perf_counter() - began))
        return {"p50_ms": statistics.median(times), "forwards": len(times)}


def main(kind: str, weights: str, dtype: str) -> None:
    """Take orders until there are no more."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    engine: Engine = (
        TransformersEngine(weights, dtype)
        if kind == "transformers"
        else AssayEngine(weights, dtype)
    )
    loop = Loop(engine)
    print(json.dumps({"threads": torch.get_num_threads()}), flush=True)
    for line in sys.stdin:
        print(json.dumps(loop.take(json.loads(line))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:4])
