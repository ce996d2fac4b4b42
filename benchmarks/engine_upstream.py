"""The share of an engine's own throughput that is left through Assay: vLLM behind it, and alone.

    python -m benchmarks.engine_upstream --rounds 5
    python -m benchmarks.engine_upstream --hidden 1024 --layers 12 --rows 64

A random Qwen3 classifier is served by vLLM on the processor (`make .venv/vllm`), and by Assay with
that engine. Rounds alternate: the same number of rows goes to the engine by a client that posts
token ids, in calls of 64 rows or row by row, and to Assay as texts, in requests of 256 items or one
by one. Texts are new in each round, but for the warm cache. Each line is a ratio of throughputs,
Assay's over the engine's, with the 95 % interval of its mean over the rounds.
"""

import argparse
import asyncio
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import torch
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForSequenceClassification

from assay_models.repository import ModelRepository, embedded_root
from benchmarks.processes import free_port

VLLM = Path(__file__).parents[1] / ".venv" / "vllm" / "bin" / "vllm"
CALL_ROWS, REQUEST_ITEMS = 64, 256
CALLS, CONNECTIONS = 4, 32
START_SECONDS = 300.0
# Student's t for a two-sided interval of 95 %, by degrees of freedom.
T_95 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)


def main() -> None:
    """Measure, and print one line a figure."""
    options = _options()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        tokenizer = build(folder, options.hidden, options.layers)
        engine, assay = free_port(), free_port()
        with vllm_running(folder / "weights", engine), assay_running(folder, engine, assay):
            asyncio.run(measure(options, tokenizer, engine=engine, assay=assay))


def build(folder: Path, hidden: int, layers: int) -> Any:
    """Save a random classifier with the tokenizer of an embedded model; return the tokenizer."""
    torch.manual_seed(0)
    repository = ModelRepository([embedded_root()])
    weights = repository.locate(repository.find("nli")).weights
    tokenizer = AutoTokenizer.from_pretrained(weights)
    fields: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": hidden,
        "intermediate_size": 3 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // 64,
        "num_key_value_heads": max(1, hidden // 128),
        "head_dim": 64,
        "num_labels": 1,
        "pad_token_id": tokenizer.pad_token_id,
    }
    classifier: Any = Qwen3ForSequenceClassification
    classifier(Qwen3Config(**fields)).save_pretrained(folder / "weights")
    tokenizer.save_pretrained(folder / "weights")
    return tokenizer


@contextmanager
def vllm_running(weights: Path, port: int) -> Iterator[None]:
    """Run vLLM with the checkpoint."""
    variables = {
        "VLLM_CPU_KVCACHE_SPACE": "2",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    options = (
        *("--runner", "pooling", "--dtype", "float32", "--enforce-eager"),
        *("--host", "127.0.0.1", "--port", str(port), "--max-num-seqs", "64"),
        *("--max-model-len", "512", "--served-model-name", "rm", "--no-enable-prefix-caching"),
    )
    with running([str(VLLM), "serve", str(weights), *options], variables):
        wait_for(f"http://127.0.0.1:{port}/health")
        yield


@contextmanager
def assay_running(folder: Path, engine: int, port: int) -> Iterator[None]:
    """Run Assay with a card of that engine."""
    (folder / "card.toml").write_text(
        'name = "rm"\nversion = 1\nfamily = "engine"\n'
        '[weights]\nsource = "folder"\npath = "weights"\n[limits]\nmax_tokens = 512\n'
        f'[engine]\nprotocol = "vllm"\nurls = ["http://127.0.0.1:{engine}"]\nmodel = "rm"\n'
    )
    variables = {"ASSAY_REPOSITORY": str(folder), "ASSAY_MODELS": "rm", "ASSAY_RUNS": "off"}
    command = [sys.executable, "-c", "from assay.cli import app; app()"]
    with running([*command, "serve", "--port", str(port)], variables):
        wait_for(f"http://127.0.0.1:{port}/readyz")
        yield


@contextmanager
def running(command: Sequence[str], variables: dict[str, str]) -> Iterator[None]:
    """Run a server until the end of the block."""
    process = subprocess.Popen(  # noqa: S603
        command, env={**os.environ, **variables}, stdout=subprocess.DEVNULL, stderr=None
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def wait_for(url: str) -> None:
    """Wait until a route answers with 200."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        try:
            if httpx2.get(url, timeout=30).status_code == 200:
                return
        except httpx2.HTTPError:
            pass
        time.sleep(0.5)
    raise SystemExit(f"{url} did not become ready")


async def measure(options: argparse.Namespace, tokenizer: Any, *, engine: int, assay: int) -> None:
    """Alternate between the engine and Assay, and print the ratios."""
    texts = Texts(tokenizer, options.tokens)
    limits = httpx2.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
    async with httpx2.AsyncClient(timeout=600, limits=limits) as client:
        caller = Caller(client, engine, assay)
        ratios: dict[str, list[float]] = {}
        for number in range(-1, options.rounds):  # the first warms up
            for name, pair in caller.pairs.items():
                rows, others = texts.draw(options.rows), texts.draw(options.rows)
                engine_rate, assay_rate = await in_turn(pair, rows, others, number % 2 == 0)
                warm_rate = len(others) / await seconds_of(pair[1], others)
                if number >= 0:
                    ratios.setdefault(name, []).append(assay_rate / engine_rate)
                    ratios.setdefault(f"{name}, warm cache", []).append(warm_rate / engine_rate)
                    print(f"{name}: {engine_rate:.1f} and {assay_rate:.1f} rows/s", flush=True)
    for name, values in ratios.items():
        print(f"{name}: {interval(values)}")


Call = Callable[[Sequence["Row"]], Awaitable[None]]
Row = tuple[str, list[int]]


async def in_turn(
    pair: tuple[Call, Call], rows: Sequence[Row], others: Sequence[Row], is_first: bool
) -> tuple[float, float]:
    """Return the rates of the engine and of Assay, in rows a second, in alternating order."""
    engine, assay = pair
    if is_first:
        engine_seconds = await seconds_of(engine, rows)
        assay_seconds = await seconds_of(assay, others)
    else:
        assay_seconds = await seconds_of(assay, others)
        engine_seconds = await seconds_of(engine, rows)
    return len(rows) / engine_seconds, len(rows) / assay_seconds


async def seconds_of(call: Call, rows: Sequence[Row]) -> float:
    """Return the wall time of a call."""
    began = time.perf_counter()
    await call(rows)
    return time.perf_counter() - began


class Texts:
    """Random texts of about the same number of tokens, none of them twice."""

    def __init__(self, tokenizer: Any, tokens: int) -> None:
        self._tokenizer, self._tokens = tokenizer, tokens
        self._chance = random.Random(0)  # noqa: S311 nothing is secret here
        self._words = [word for word in tokenizer.get_vocab() if word.isascii() and word.isalpha()]

    def draw(self, count: int) -> list[Row]:
        """Return texts with their token ids."""
        texts = [" ".join(self._chance.choices(self._words, k=self._tokens)) for _ in range(count)]
        rows = []
        for text in texts:
            ids = self._tokenizer(text)["input_ids"][: self._tokens]
            short = self._tokenizer.decode(ids, skip_special_tokens=True)
            rows.append((short, self._tokenizer(short)["input_ids"]))
        return rows


class Caller:
    """The clients of both servers, on kept connections."""

    def __init__(self, client: httpx2.AsyncClient, engine: int, assay: int) -> None:
        self._client = client
        self._engine = f"http://127.0.0.1:{engine}/classify"
        self._assay = f"http://127.0.0.1:{assay}/v1/score"

    @property
    def pairs(self) -> dict[str, tuple[Call, Call]]:
        """The call of the engine and the one of Assay, by the kind of traffic."""
        return {
            "bulk": (self.engine_bulk, self.assay_bulk),
            "single items": (self.engine_single, self.assay_single),
        }

    async def engine_bulk(self, rows: Sequence[Row]) -> None:
        """Post token ids in calls of `CALL_ROWS`, `CALLS` at a time."""
        await self._in_parallel(self._classify, _parts(rows, CALL_ROWS), CALLS)

    async def engine_single(self, rows: Sequence[Row]) -> None:
        """Post each row alone, on `CONNECTIONS` connections."""
        await self._in_parallel(self._classify, _parts(rows, 1), CONNECTIONS)

    async def assay_bulk(self, rows: Sequence[Row]) -> None:
        """Post texts in requests of `REQUEST_ITEMS`, `CALLS` at a time."""
        await self._in_parallel(self._score, _parts(rows, REQUEST_ITEMS), CALLS)

    async def assay_single(self, rows: Sequence[Row]) -> None:
        """Post each text alone, on `CONNECTIONS` connections."""
        await self._in_parallel(self._score, _parts(rows, 1), CONNECTIONS)

    async def _classify(self, rows: Sequence[Row]) -> None:
        body = {"model": "rm", "input": [ids for _, ids in rows], "use_activation": False}
        await self._post(self._engine, body)

    async def _score(self, rows: Sequence[Row]) -> None:
        body = {"model": "rm", "items": [{"text": text} for text, _ in rows]}
        await self._post(self._assay, body)

    async def _post(self, url: str, body: dict[str, Any]) -> None:
        (await self._client.post(url, json=body)).raise_for_status()

    async def _in_parallel(self, call: Call, parts: Sequence[Sequence[Row]], width: int) -> None:
        waiting = iter(parts)

        async def work() -> None:
            for part in waiting:
                await call(part)

        await asyncio.gather(*(work() for _ in range(width)))


def _parts(rows: Sequence[Row], size: int) -> list[Sequence[Row]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def interval(values: Sequence[float]) -> str:
    """Return the geometric mean of ratios, with its interval of 95 %."""
    logs = [math.log(value) for value in values]
    mean = statistics.fmean(logs)
    if len(logs) < 2:
        return f"{math.exp(mean):.3f}"
    width = T_95[min(len(logs), 10) - 2] * statistics.stdev(logs) / math.sqrt(len(logs))
    return f"{math.exp(mean):.3f} [{math.exp(mean - width):.3f}, {math.exp(mean + width):.3f}]"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=256, help="rows of one round")
    parser.add_argument("--tokens", type=int, default=200, help="tokens of a row")
    parser.add_argument("--hidden", type=int, default=256, help="width of the random classifier")
    parser.add_argument("--layers", type=int, default=4)
    return parser.parse_args()


if __name__ == "__main__":
    main()
