"""How long a thousand pairs of claim and evidence take in one request, against the bare loop.

Both compute with the same loaded model in one process, in turn, on texts that were not asked
before. The bare loop tokenises each pair, sorts them by length and calls the model's `predict` on
batches of as many tokens as the server's; the request goes through the whole service, and JSON.

Example:
    python -m benchmarks.bulk_claims --rounds 9 --threads 1
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
from assay.app import CPU_BATCH_TOKENS, create_app
from assay.settings import Settings
from assay_models.base import Input, RewardModel
from assay_models.families.nli.model import NliModel
from benchmarks.monitoring import ratio

CLAIMS, PASSAGES = 25, 40
BATCH_SIZE = 64
PATIENCE = 600.0
SHORTEST, LONGEST, TYPICAL = 4, 60, 10
WORDS = (
    *("the", "a", "of", "in", "and", "with", "from", "under", "after", "before", "near"),
    *("ferry", "island", "harbour", "winter", "morning", "bridge", "library", "river", "doctor"),
    *("leaves", "opens", "carries", "closes", "repairs", "shows", "measures", "treats", "grows"),
    *("old", "small", "red", "quiet", "new", "heavy", "early", "northern", "careful", "open"),
)


class Spent(NamedTuple):
    """What one pass took: seconds by the clock, and seconds of this process's processors."""

    clock: float
    processor: float


def main() -> None:
    """Measure in turn, print each round and the ratios with their intervals."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    found = asyncio.run(_measured(arguments))
    for kind in Spent._fields:
        share = ratio([(getattr(bare, kind), getattr(asked, kind)) for bare, asked in found])
        print(
            f"{kind}: {CLAIMS * PASSAGES} pairs in one request reach {share.value:.3f} of the bare "
            f"loop's throughput [{share.low:.3f}, {share.high:.3f}], {len(found)} rounds"
        )


def item(chance: random.Random) -> dict[str, Any]:
    """Claims and passages of made-up words, each its own length."""
    return {
        "evidence": [_text(chance, SHORTEST, LONGEST, TYPICAL) for _ in range(PASSAGES)],
        "claims": [_text(chance, 5, 30, 12) for _ in range(CLAIMS)],
    }


def batches(inputs: Sequence[Input], tokens: int) -> Iterator[list[Input]]:
    """Inputs by length, in batches of at most so many tokens, padding counted."""
    batch: list[Input] = []
    for one in sorted(inputs, key=lambda one: one.tokens):
        if batch and ((len(batch) + 1) * one.tokens > tokens or len(batch) == BATCH_SIZE):
            yield batch
            batch = []
        batch.append(one)
    if batch:
        yield batch


async def _measured(arguments: argparse.Namespace) -> list[tuple[Spent, Spent]]:
    settings = Settings(models=(arguments.model,), runs="off", timeout=PATIENCE)
    app = create_app(settings)
    transport = httpx2.ASGITransport(app=app)
    async with app.router.lifespan_context(app):
        (served,) = components_of(app).service.models()
        if not await served.loaded():
            raise SystemExit(served.failure)
        client = httpx2.AsyncClient(transport=transport, base_url="http://assay", timeout=PATIENCE)
        async with client:
            chance = random.Random(arguments.seed)  # noqa: S311 made-up texts
            found: list[tuple[Spent, Spent]] = []
            for number in range(arguments.rounds + 1):
                fields = item(chance)
                asked = await _asked(client, arguments.model, fields)
                bare = _bare(served.require_ready().model, fields)
                print(f"bare loop {bare.clock:.1f} s, request {asked.clock:.1f} s", flush=True)
                if number:  # the first round warms up
                    found.append((bare, asked))
            return found


def _bare(model: RewardModel, fields: dict[str, Any]) -> Spent:
    assert isinstance(model, NliModel)
    began = _now()
    inputs = [
        model.classifier.encode_text(passage, claim, "error").input()
        for claim in fields["claims"]
        for passage in fields["evidence"]
    ]
    for batch in batches(inputs, CPU_BATCH_TOKENS):
        model.predict(batch)
    return _since(began)


async def _asked(client: httpx2.AsyncClient, model: str, fields: dict[str, Any]) -> Spent:
    began = _now()
    answer = await client.post("/v1/score", json={"model": model, "items": [fields]})
    spent = _since(began)
    (result,) = answer.raise_for_status().json()["results"]
    if result["source"] != "computed" or result["details"]["chunks"] != PASSAGES:
        raise SystemExit(f"not computed as asked: {result}")
    return spent


def _now() -> Spent:
    return Spent(time.perf_counter(), time.process_time())


def _since(began: Spent) -> Spent:
    now = _now()
    return Spent(now.clock - began.clock, now.processor - began.processor)


def _text(chance: random.Random, shortest: int, longest: int, typical: int) -> str:
    count = round(chance.triangular(shortest, longest, typical))
    return " ".join(chance.choices(WORDS, k=count)).capitalize() + "."


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bulk_claims",
        description="A thousand pairs of claim and evidence in one request, against the bare loop.",
        epilog="example: python -m benchmarks.bulk_claims --rounds 9 --threads 1",
    )
    parser.add_argument("--model", default="nli", help="a served model of the family nli")
    parser.add_argument("--rounds", type=int, default=9, help="after the first, which warms up (9)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (1)")
    parser.add_argument("--seed", type=int, default=1, help="of the texts (1)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
