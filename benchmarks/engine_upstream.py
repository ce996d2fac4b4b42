"""The share of an engine's own throughput that is left through Assay: vLLM behind it, and alone.

    python -m benchmarks.engine_upstream --rounds 5
    python -m benchmarks.engine_upstream --hidden 1024 --layers 12 --rows 64
    python -m benchmarks.engine_upstream --calls 2 4 8 --items 32 64

A random Qwen3 classifier is served by vLLM on the processor (`make .venv/vllm`), and by Assay with
that engine, once for each number of calls in flight and of rows in a call. Rounds alternate: the
same number of rows goes to the engine by a client that posts token ids, in calls of 64 rows or row
by row, and to Assay as texts, in requests of 256 items or one by one. Texts are new in each round,
but for the warm cache; the engine keeps no prefixes. Each line is a ratio of throughputs, Assay's
over the engine's, with the 95 % interval of its mean over the rounds.
"""

import argparse
import asyncio
import math
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import httpx2
import torch
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForSequenceClassification

from assay_models.repository import ModelRepository, embedded_root
from benchmarks.processes import free_port

VLLM = Path(__file__).parents[1] / ".venv" / "vllm" / "bin" / "vllm"
CALL_ROWS, REQUEST_ITEMS = 64, 256
MAX_TOKENS = 512
CALLS = 4
KINDS = ["bulk", "single"]
ENGINE = "the engine"
START_SECONDS = 300.0
STOP_SECONDS = 30.0
# Student's t for a two-sided interval of 95 %, by degrees of freedom.
T_95 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)


def main() -> None:
    """Measure, and print one line a figure."""
    options = _options()
    # The servers run in sessions of their own: SIGTERM to this process must not leave them running.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    cards = [Card(*pair, options.canary) for pair in product(options.calls, options.items)]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        tokenizer = build(folder, options.hidden, options.layers)
        engine, assay = free_port(), free_port()
        with vllm_running(folder / "weights", engine), assay_running(folder, cards, engine, assay):
            texts = Texts(tokenizer, options.tokens)
            asyncio.run(measure(options, cards, texts, engine=engine, assay=assay))


@dataclass(frozen=True)
class Card:
    """The bounds of the calls of one model of Assay."""

    calls: int
    items: int
    canary: str

    @property
    def name(self) -> str:
        """The model's name."""
        return f"rm-{self.calls}-calls-of-{self.items}"

    def write(self, folder: Path, engine: int) -> None:
        """Write it for a model that the engine at a port computes."""
        place = folder / self.name / "1"
        place.mkdir(parents=True)
        (place / "card.toml").write_text(
            f'name = "{self.name}"\nversion = 1\nfamily = "engine"\n'
            f'[weights]\nsource = "folder"\npath = "{folder / "weights"}"\n'
            f"[limits]\nmax_tokens = {MAX_TOKENS}\n"
            f'[engine]\nprotocol = "vllm"\nurls = ["http://127.0.0.1:{engine}"]\nmodel = "rm"\n'
            f"max_calls = {self.calls}\nmax_call_items = {self.items}\n"
            f'parity = "off"\nmax_call_tokens = {256 * self.items}\ncanary = "{self.canary}"\n'
        )


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
        *(
            "--max-model-len",
            str(MAX_TOKENS),
            "--served-model-name",
            "rm",
            "--no-enable-prefix-caching",
        ),
    )
    with running([str(VLLM), "serve", str(weights), *options], variables):
        wait_for(f"http://127.0.0.1:{port}/health")
        yield


@contextmanager
def assay_running(folder: Path, cards: Sequence[Card], engine: int, port: int) -> Iterator[None]:
    """Run Assay with cards of that engine."""
    for card in cards:
        card.write(folder, engine)
    variables = {
        "ASSAY_REPOSITORY": str(folder),
        "ASSAY_MODELS": ",".join(card.name for card in cards),
        "ASSAY_RUNS": "off",
    }
    command = [sys.executable, "-c", "from assay.cli import app; app()"]
    with running([*command, "serve", "--port", str(port)], variables):
        wait_for(f"http://127.0.0.1:{port}/readyz")
        yield


@contextmanager
def running(command: Sequence[str], variables: dict[str, str]) -> Iterator[None]:
    """Run a server until the end of the block; its children end with it."""
    process = subprocess.Popen(  # noqa: S603
        command,
        env={**os.environ, **variables},
        stdout=subprocess.DEVNULL,
        stderr=None,
        start_new_session=True,
    )
    try:
        yield
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
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


async def measure(
    options: argparse.Namespace,
    cards: Sequence[Card],
    texts: "Texts",
    *,
    engine: int,
    assay: int,
) -> None:
    """Alternate between the engine and Assay, and print the ratios."""
    width = options.connections
    limits = httpx2.Limits(max_connections=width, max_keepalive_connections=width)
    async with httpx2.AsyncClient(timeout=600, limits=limits) as client:
        ratios: dict[str, list[float]] = {}
        for number in range(-1, options.rounds):  # the first warms up
            for kind in options.kinds:
                caller = Caller(client, engine, assay, kind, width)
                rates = await one_round(caller, cards, texts, options.rows, number % 2 == 0)
                print(kind, *(f"{name} {rate:.2f}" for name, rate in rates.items()), flush=True)
                for name, rate in rates.items():
                    if number >= 0 and name != ENGINE:
                        ratios.setdefault(f"{kind}, {name}", []).append(rate / rates[ENGINE])
    for name, values in ratios.items():
        print(f"{name}: {interval(values)}")


async def one_round(
    caller: "Caller", cards: Sequence[Card], texts: "Texts", count: int, is_first: bool
) -> dict[str, float]:
    """Return rows a second of the engine and of each card, in alternating order."""
    names = [ENGINE, *(card.name for card in cards)]
    rates: dict[str, float] = {}
    for name in names if is_first else names[::-1]:
        rows = texts.draw(count)
        rates[name] = count / await seconds_of(caller, name, rows)
        if name == names[-1]:
            rates["warm cache"] = count / await seconds_of(caller, name, rows)
    return rates


async def seconds_of(caller: "Caller", name: str, rows: Sequence["Row"]) -> float:
    """Return the wall time in which the engine, or a model of Assay, computes rows."""
    began = time.perf_counter()
    await caller.compute(name, rows)
    return time.perf_counter() - began


Row = tuple[str, list[int]]


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
    """The clients of both servers, on kept connections.

    Bulk traffic keeps `CALLS` calls in flight: of `CALL_ROWS` rows at the engine, requests of
    `REQUEST_ITEMS` items at Assay. Single items come from `width` connections.
    """

    def __init__(
        self, client: httpx2.AsyncClient, engine: int, assay: int, kind: str, width: int
    ) -> None:
        self._client = client
        self._engine = f"http://127.0.0.1:{engine}/classify"
        self._assay = f"http://127.0.0.1:{assay}/v1/score"
        self._is_bulk = kind == "bulk"
        self._width = CALLS if self._is_bulk else width

    async def compute(self, name: str, rows: Sequence[Row]) -> None:
        """Post all rows, to the engine as token ids or to a model of Assay as texts."""
        size = (CALL_ROWS if name == ENGINE else REQUEST_ITEMS) if self._is_bulk else 1
        waiting = iter(_parts(rows, size))

        async def work() -> None:
            for part in waiting:
                await self._post(name, part)

        await asyncio.gather(*(work() for _ in range(self._width)))

    async def _post(self, name: str, rows: Sequence[Row]) -> None:
        if name == ENGINE:
            ids = [ids for _, ids in rows]
            body = {"model": "rm", "input": ids, "use_activation": False}
            reply = await self._client.post(self._engine, json=body)
            values = [entry.get("probs") for entry in reply.json().get("data", ())]
        else:
            items = [{"text": text} for text, _ in rows]
            reply = await self._client.post(self._assay, json={"model": name, "items": items})
            values = [result.get("score") for result in reply.json().get("results", ())]
        if len(values) < len(rows) or None in values:
            raise SystemExit(f"{name} left rows without a number: status {reply.status_code}")


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
    parser.add_argument("--connections", type=int, default=64, help="clients with single items")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--calls", type=int, nargs="+", default=[4], help="engine.max_calls")
    parser.add_argument("--items", type=int, nargs="+", default=[64], help="engine.max_call_items")
    parser.add_argument("--canary", choices=["call", "schedule"], default="call")
    return parser.parse_args()


if __name__ == "__main__":
    main()
