"""The limit of the machine without any server: forward passes in a bare loop, on all cores.

Run as `python -m benchmarks.bare_loop KIND WEIGHTS DTYPE`, KIND `transformers` (plain Transformers
over batches of a length) or `assay` (the forward pass of Assay's own family). It reads commands,
one line of JSON each, and answers each with a line of JSON; between commands it sleeps.
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

from benchmarks.texts import Text, from_json_rows

ROW_BOUNDS = (1, 2, 4, 8, 16, 32, 64)
TOKEN_BOUNDS = (512, 1024, 2048, 4096, 8192, 16_384)


class Engine(Protocol):
    """A way to compute scores in batches of bounded size."""

    @property
    def bounds(self) -> Sequence[int]:
        """The bounds of a batch to try."""

    def rows(self, texts: Sequence[Text]) -> list[Any]:
        """Prepare texts, so that the loop times only forward passes."""

    def batches(self, rows: Sequence[Any], bound: int) -> Iterator[Sequence[Any]]:
        """Divide rows into batches of that bound."""

    def forward(self, batch: Sequence[Any]) -> list[float]:
        """Return the scores of a batch."""


class TransformersEngine:
    """Plain Transformers; a batch is bounded by its rows."""

    bounds = ROW_BOUNDS

    def __init__(self, weights: str, dtype: str) -> None:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        self._tokenizer: Any = AutoTokenizer.from_pretrained(weights)
        loaded: Any = AutoModelForSequenceClassification.from_pretrained(
            weights, dtype=getattr(torch, dtype)
        )
        self._model = loaded.eval()

    def rows(self, texts: Sequence[Text]) -> list[Any]:
        """Return the token ids of each text."""
        return [self._tokenizer(text.prompt, text.response) for text in texts]

    def batches(self, rows: Sequence[Any], bound: int) -> Iterator[Sequence[Any]]:
        """Yield `bound` rows at a time."""
        for start in range(0, len(rows), bound):
            yield rows[start : start + bound]

    def forward(self, batch: Sequence[Any]) -> list[float]:
        """Return the logits of a padded batch."""
        fields = {name: [row[name] for row in batch] for name in batch[0]}
        inputs = self._tokenizer.pad(fields, return_tensors="pt")
        with torch.inference_mode():
            scores: list[float] = self._model(**inputs).logits[:, 0].float().tolist()
        return scores


class AssayEngine:
    """The family that Assay loads; a batch is bounded by the cost that the family states."""

    bounds = TOKEN_BOUNDS

    def __init__(self, weights: str, dtype: str) -> None:
        from assay_models.registry import Runtime, family_of
        from assay_models.repository import ModelRepository

        repository = ModelRepository([Path(weights).parent])
        entry = repository.find(repository.cards()[0].id)
        family = family_of(entry.card)
        self._model: Any = family.load(entry.card, repository.locate(entry), Runtime(dtype=dtype))

    def rows(self, texts: Sequence[Text]) -> list[Any]:
        """Return prepared inputs."""
        from assay_models.base import Options
        from assay_models.items import TextItem

        items = [TextItem(prompt=text.prompt, response=text.response) for text in texts]
        return [self._model.prepare([item], Options()).inputs[0] for item in items]

    def batches(self, rows: Sequence[Any], bound: int) -> Iterator[Sequence[Any]]:
        """Yield as many rows at a time as cost no more than the bound; at least one."""
        batch: list[Any] = []
        for row in rows:
            if batch and self._model.cost([*batch, row]) > bound:
                yield batch
                batch = []
            batch.append(row)
        if batch:
            yield batch

    def forward(self, batch: Sequence[Any]) -> list[float]:
        """Return the raws of a batch."""
        return [raw[0] for raw in self._model.predict(batch)]


class BareLoop:
    """The commands of the process, executed on one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._rows: list[Any] = []
        self._expected: list[float] = []
        self._tokens = 0

    def execute(self, command: dict[str, Any]) -> dict[str, Any]:
        """Execute one command and return its answer."""
        commands: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "texts": self._prepare,
            "search": self._search,
            "measure": self._measure,
            "single": self._measure_single,
        }
        return commands[command["do"]](command)

    def _prepare(self, command: dict[str, Any]) -> dict[str, Any]:
        """Prepare texts: sorted by length, unless they are groups that belong together."""
        texts = from_json_rows(command["texts"])
        pairs = list(zip(texts, command["expected"], strict=True))
        if command["sort"]:
            pairs.sort(key=lambda pair: pair[0].tokens)
        self._rows = self._engine.rows([text for text, _ in pairs])
        self._expected = [score for _, score in pairs]
        self._tokens = sum(text.tokens for text, _ in pairs)
        return {"items": len(pairs)}

    def _search(self, command: dict[str, Any]) -> dict[str, Any]:
        """Find the bound with the highest rate on some of the texts; return all rates too."""
        rows = self._rows[: command["first"] : command["every"]]
        self._engine.forward(rows[:1])
        rates: dict[int, float] = {}
        tried: list[list[int]] = []
        for bound in self._engine.bounds:
            batches = list(self._engine.batches(rows, bound))
            sizes = [len(batch) for batch in batches]
            if sizes in tried:
                continue
            tried.append(sizes)
            started = time.perf_counter()
            for batch in batches:
                self._engine.forward(batch)
            rates[bound] = len(rows) / (time.perf_counter() - started)
        return {"best": max(rates, key=lambda bound: rates[bound]), "rates": rates}

    def _measure(self, command: dict[str, Any]) -> dict[str, Any]:
        """Compute all texts once, at a bound."""
        batches = list(self._engine.batches(self._rows, command["bound"]))
        started = time.perf_counter()
        scores = [score for batch in batches for score in self._engine.forward(batch)]
        seconds = time.perf_counter() - started
        pairs = zip(scores, self._expected, strict=True)
        return {
            "items_per_second": len(scores) / seconds,
            "tokens_per_second": self._tokens / seconds,
            "seconds": seconds,
            "forwards": len(batches),
            "largest_difference": max(abs(score - expected) for score, expected in pairs),
        }

    def _measure_single(self, command: dict[str, Any]) -> dict[str, Any]:
        """Compute one row repeatedly, alone."""
        row = self._engine.rows(from_json_rows(command["texts"]))
        times = []
        ends = time.perf_counter() + command["seconds"]
        while (started := time.perf_counter()) < ends:
            self._engine.forward(row)
            times.append(1e3 * (time.perf_counter() - started))
        return {"p50_ms": statistics.median(times), "forwards": len(times)}


def main(kind: str, weights: str, dtype: str) -> None:
    """Execute commands until the input ends."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    engine: Engine = (
        TransformersEngine(weights, dtype)
        if kind == "transformers"
        else AssayEngine(weights, dtype)
    )
    loop = BareLoop(engine)
    print(json.dumps({"threads": torch.get_num_threads()}), flush=True)
    for line in sys.stdin:
        print(json.dumps(loop.execute(json.loads(line))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:4])
