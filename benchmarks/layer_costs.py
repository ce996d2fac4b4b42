"""The costs of the layers of one model: processor time around the calls that the server makes."""

import asyncio
import gc
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Iterable, Sequence
from statistics import median
from typing import NamedTuple

import orjson
from prometheus_client import CollectorRegistry

from assay.api.json import json_response, parse_json
from assay.api.schemas import ScoreBody
from assay.batching.batcher import BatchLimits, DynamicBatcher
from assay.batching.entry import Entry, Outcome
from assay.cache.memory import MemoryCache
from assay.metrics import Metrics
from assay.scoring.assemble import assemble_results, timing_of, usage_of
from assay.scoring.preparation_pool import PreparationPool
from assay.scoring.prepare import PrepareCall, Preparer, RequestBudget
from assay.scoring.prepared_cache import PreparedCache, PreparedItems
from assay.served_model import Ready, ServedModel
from assay.types import ScoreReply
from assay_models.base import Input, Options, Prepared

MODEL = "code"
ITEMS, STORED = 512, 100_000
LONG = 12  # functions of an answer of 1,000 tokens
FUNCTION = """def solve_{number}(values, limit={number}):
    total = 0
    for index, value in enumerate(values):
        if value % 7 == {number} % 7 and total < limit:
            total += value * index
    return total, sorted(values)[: {number} % 9 + 1]
"""


class Cost(NamedTuple):
    """One row: a value, and the least and the greatest measurement."""

    layer: str
    quantity: str
    unit: str
    value: float
    low: float
    high: float


def summarise(layer: str, quantity: str, unit: str, values: Sequence[float]) -> Cost:
    """Return the row of some measurements, with their median."""
    return Cost(layer, quantity, unit, median(values), min(values), max(values))


def items(start: int, functions: int = 1) -> list[dict[str, str]]:
    """Return distinct items: groups of eight answers to one task, of that many functions."""
    return [
        {
            "prompt": f"Write a function that sums every seventh value, task {number // 8}.",
            "response": "Here is the function.\n```python\n"
            + functions * FUNCTION.format(number=number)
            + "```",
        }
        for number in range(start, start + ITEMS)
    ]


class Layers:
    """The layers of one loaded model, each measured over `ITEMS` items.

    Args:
        served: the model.
        ready: its loaded state.
    """

    def __init__(self, served: ServedModel, ready: Ready) -> None:
        self._served, self._ready = served, ready
        self._metrics = Metrics(CollectorRegistry())
        self._pool = PreparationPool(
            1, max_bytes=1 << 28, clock=time.monotonic, metrics=self._metrics
        )
        self._number = 0

    async def measure(self, repeats: int) -> list[Cost]:
        """Return the rows of all layers."""
        rounds = [await self._round() for _ in range(repeats + 1)][1:]  # the first one warms up
        names = list(rounds[0])
        costs = [summarise(*name, [row[name] for row in rounds]) for name in names]
        return [*costs, *await self._sizes()]

    async def _round(self) -> dict[tuple[str, str, str], float]:
        fields = items(self._number)
        self._number += ITEMS
        body = orjson.dumps({"model": MODEL, "items": fields})
        single = [orjson.dumps({"model": MODEL, "items": [item]}) for item in fields]
        preparer = Preparer(PreparedCache(1 << 26, self._metrics), self._pool)
        cache = MemoryCache(1 << 26, self._metrics)
        row: dict[tuple[str, str, str], float] = {}

        async def timed(layer: str, quantity: str, work: Awaitable[object]) -> None:
            gc.collect()
            began = time.process_time()
            await work
            row[layer, quantity, "µs"] = 1e6 * (time.process_time() - began) / ITEMS

        await timed("parse", "an item alone in its body", _parse(single))
        await timed("parse", "an item of a body of 512", _parse([body]))
        entries: list[PreparedItems] = []
        await timed(
            "prepare", "extraction, template, tokens", self._prepare(preparer, fields, entries)
        )
        long = items(self._number, functions=LONG)
        await timed("prepare", f"the same of {LONG} functions", self._prepare(preparer, long, []))
        await timed("prepare", "known before", self._prepare(preparer, fields, []))
        raws = {entry.keys[0]: (0.5,) for entry in entries}
        await timed("cache", "stored in memory", cache.put_many(raws))
        await timed("cache", "found in memory", _get(cache, raws))
        batcher = self._batcher()
        inputs = [(entry.keys[0], _inputs(entry)[0]) for entry in entries]
        await timed("batch", "queued, batched, settled", self._compute(batcher, inputs))
        await timed("reply", "score, reply, JSON", self._reply(entries))
        await batcher.close(1.0)
        return row

    async def _prepare(
        self, preparer: Preparer, fields: Sequence[dict[str, str]], entries: list[PreparedItems]
    ) -> None:
        for item in fields:
            call = PrepareCall(
                self._ready.model,
                self._ready.raw_fingerprint,
                self._served.family.item,
                Options(),
                scope=b"unit costs",
                budget=RequestBudget(1 << 30),
                lane="training",
                deadline=time.monotonic() + 60,
            )
            prepared, _ = await preparer.prepare(call, [item])
            entries += prepared

    def _batcher(self) -> DynamicBatcher:
        async def predict(inputs: Sequence[Input]) -> list[tuple[float, ...]]:
            return [(0.5,) for _ in inputs]

        batcher = DynamicBatcher(
            name=MODEL,
            predict=predict,
            thread=None,
            limits=BatchLimits(16_384, 64, 1 << 30),
            metrics=self._metrics,
            clock=time.monotonic,
        )
        batcher.start()
        return batcher

    async def _compute(
        self, batcher: DynamicBatcher, inputs: Sequence[tuple[bytes, Input]]
    ) -> None:
        deadline = time.monotonic() + 60
        await asyncio.gather(*(batcher.compute([pair], deadline) for pair in inputs))

    async def _reply(self, entries: Sequence[PreparedItems]) -> None:
        for entry in entries:
            self._reply_to(entry)

    def _reply_to(self, entry: PreparedItems) -> bytes:
        outcomes = [Outcome((0.5,), "computed")]
        results = assemble_results(
            self._ready.model, [entry], outcomes=outcomes, options=Options(), substitute=None
        )
        reply = ScoreReply(
            id="score-" + 32 * "0",
            model=self._served.id,
            fingerprint=self._ready.fingerprint(Options()),
            results=results,
            groups=None,
            usage=usage_of(results),
            timing=timing_of(outcomes, 0.0, 0.0),
        )
        return bytes(json_response(reply).body)

    async def _sizes(self) -> list[Cost]:
        """Return what each layer holds of an item."""
        fields = items(self._number)
        entries: list[PreparedItems] = []
        await self._prepare(
            Preparer(PreparedCache(1 << 26, self._metrics), self._pool), fields, entries
        )
        long: list[PreparedItems] = []
        preparer = Preparer(PreparedCache(1 << 26, self._metrics), self._pool)
        await self._prepare(preparer, items(self._number, LONG), long)
        bodies = [orjson.dumps({"model": MODEL, "items": [item]}) for item in fields]
        cache = MemoryCache(1 << 26, self._metrics)
        keys = [number.to_bytes(32, "big") for number in range(STORED)]
        stored = await _grown(lambda: cache.put_many({key: (float(key[31]),) for key in keys}))
        row, waiting = _inputs(entries[0])[0], list[Entry]()
        queued = await _grown(lambda: _append(waiting, row, len(keys)))
        sizes: dict[tuple[str, str, str], Iterable[float]] = {
            ("parse", "body of one item", "bytes"): map(len, bodies),
            ("prepare", "tokens of an item", "tokens"): [entry.tokens for entry in entries],
            ("prepare", f"tokens of {LONG} functions", "tokens"): [entry.tokens for entry in long],
            ("prepare", "a prepared item", "bytes"): [entry.size for entry in entries],
            ("cache", "a raw in memory", "bytes"): [stored / len(keys)],
            ("batch", "an entry besides its input", "bytes"): [queued / len(keys)],
            ("reply", "reply of one item", "bytes"): [
                len(self._reply_to(entry)) for entry in entries
            ],
        }
        return [summarise(*name, list(values)) for name, values in sizes.items()]


async def _parse(bodies: Sequence[bytes]) -> None:
    for body in bodies:
        ScoreBody.model_validate(parse_json(body))


async def _get(cache: MemoryCache, keys: Iterable[bytes]) -> None:
    for key in keys:
        await cache.get_many([key])


async def _append(waiting: list[Entry], row: Input, count: int) -> None:
    waiting += [Entry(row, "training", 0.0, 0.0, b"") for _ in range(count)]


async def _grown(fill: Callable[[], Awaitable[None]]) -> int:
    """Return the bytes of all objects that `fill` made and kept."""
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    await fill()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return after - before


def _inputs(entry: PreparedItems) -> tuple[Input, ...]:
    assert isinstance(entry.prepared, Prepared)
    return entry.prepared.inputs
