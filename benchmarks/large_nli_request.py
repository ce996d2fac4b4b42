"""The duration of a thousand pairs of claim and evidence in one request, against a bare loop.

Both compute with the same loaded model in one process, alternating, on texts that are in no cache.
The bare loop tokenizes each pair, sorts them by length and calls the model's `predict` on batches
of as many tokens as the server's; the request goes through the whole service, JSON included.

Example:
    python -m benchmarks.large_nli_request --rounds 9 --threads 1
"""

import argparse
import asyncio
import random
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import httpx2
import torch

from assay.api.components import components_of
from assay.app import create_app
from assay.selection import CPU_BATCH_TOKENS
from assay.settings import Settings
from assay_models.base import Input, RewardModel
from assay_models.families.nli.model import NliModel
from benchmarks.monitoring import mean_ratio

CLAIMS, PASSAGES = 25, 40
BATCH_SIZE = 64
TIMEOUT_SECONDS = 600.0
PASSAGE_WORDS, CLAIM_WORDS = (4, 60, 10), (5, 30, 12)
WORDS = (
    *("the", "a", "of", "in", "and", "with", "from", "under", "after", "before", "near"),
    *("ferry", "island", "harbour", "winter", "morning", "bridge", "library", "river", "doctor"),
    *("leaves", "opens", "carries", "closes", "repairs", "shows", "measures", "treats", "grows"),
    *("old", "small", "red", "quiet", "new", "heavy", "early", "northern", "careful", "open"),
)


class Duration(NamedTuple):
    """The duration of a pass: seconds by the clock, and processor seconds of this process."""

    clock: float
    processor: float


def main() -> None:
    """Measure alternately, print each round and the ratios with their intervals."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    rounds = asyncio.run(_measure(arguments))
    for kind in ("clock", "processor"):
        pairs = [(getattr(bare, kind), getattr(requested, kind)) for bare, requested in rounds]
        share = mean_ratio(pairs)
        print(
            f"{kind}: {CLAIMS * PASSAGES} pairs in one request reach {share.value:.3f} of the bare "
            f"loop's throughput [{share.low:.3f}, {share.high:.3f}], {len(rounds)} rounds"
        )


def random_item(generator: random.Random) -> dict[str, Any]:
    """Return claims and passages of random words, each of its own length."""
    return {
        "evidence": [_text(generator, *PASSAGE_WORDS) for _ in range(PASSAGES)],
        "claims": [_text(generator, *CLAIM_WORDS) for _ in range(CLAIMS)],
    }


def batches_by_length(inputs: Sequence[Input], tokens: int) -> Iterator[list[Input]]:
    """Yield inputs by length, in batches of at most `tokens` tokens, padding included."""
    batch: list[Input] = []
    for row in sorted(inputs, key=lambda row: row.tokens):
        if batch and ((len(batch) + 1) * row.tokens > tokens or len(batch) == BATCH_SIZE):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


async def _measure(arguments: argparse.Namespace) -> list[tuple[Duration, Duration]]:
    settings = Settings(models=(arguments.model,), runs="off", timeout=TIMEOUT_SECONDS)
    app = create_app(settings)
    transport = httpx2.ASGITransport(app=app)
    async with app.router.lifespan_context(app):
        (served,) = components_of(app).service.models()
        if not await served.loaded():
            raise SystemExit(served.failure)
        client = httpx2.AsyncClient(
            transport=transport, base_url="http://assay", timeout=TIMEOUT_SECONDS
        )
        async with client:
            generator = random.Random(arguments.seed)  # noqa: S311 made-up texts
            rounds: list[tuple[Duration, Duration]] = []
            for number in range(arguments.rounds + 1):
                fields = random_item(generator)
                requested = await _request(client, arguments.model, fields)
                bare = _run_bare_loop(served.require_ready().model, fields)
                print(f"bare loop {bare.clock:.1f} s, request {requested.clock:.1f} s", flush=True)
                if number:  # the first round warms up
                    rounds.append((bare, requested))
            return rounds


def _run_bare_loop(model: RewardModel, fields: dict[str, Any]) -> Duration:
    assert isinstance(model, NliModel)
    started = _now()
    inputs = [
        model.classifier.encode_text(passage, claim, "error").input()
        for claim in fields["claims"]
        for passage in fields["evidence"]
    ]
    for batch in batches_by_length(inputs, CPU_BATCH_TOKENS):
        model.predict(batch)
    return _since(started)


async def _request(client: httpx2.AsyncClient, model: str, fields: dict[str, Any]) -> Duration:
    started = _now()
    answer = await client.post("/v1/score", json={"model": model, "items": [fields]})
    duration = _since(started)
    (result,) = answer.raise_for_status().json()["results"]
    if result["source"] != "computed" or result["details"]["chunks"] != PASSAGES:
        raise SystemExit(f"not computed as asked: {result}")
    return duration


def _now() -> Duration:
    return Duration(time.perf_counter(), time.process_time())


def _since(started: Duration) -> Duration:
    now = _now()
    return Duration(now.clock - started.clock, now.processor - started.processor)


def _text(generator: random.Random, low: int, high: int, mode: int) -> str:
    count = round(generator.triangular(low, high, mode))
    return " ".join(generator.choices(WORDS, k=count)).capitalize() + "."


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.large_nli_request",
        description="A thousand pairs of claim and evidence in one request, against the bare loop.",
        epilog="example: python -m benchmarks.large_nli_request --rounds 9 --threads 1",
    )
    parser.add_argument("--model", default="nli", help="a served model of the family nli")
    parser.add_argument("--rounds", type=int, default=9, help="after the first, which warms up (9)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (1)")
    parser.add_argument("--seed", type=int, default=1, help="of the texts (1)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
