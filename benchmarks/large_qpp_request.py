"""The duration of a thousand queries in one request, against the bare encoder on such queries.

The bare encoder is plain Transformers in padded batches of queries of similar length, tokenization
included, without a server. Both compute queries that are in no cache, alternating, under the same
machine load. A served model must run, with as many threads: `make serve`.

Example:
    python -m benchmarks.large_qpp_request --url http://127.0.0.1:8000 --threads 2
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import BertModel

from assay_client import Client
from assay_models.repository import ModelRepository, embedded_root

EXAMPLE = "example: python -m benchmarks.large_qpp_request --url http://127.0.0.1:8000 --threads 2"
QUERIES = 1000
BATCH_SIZE = 64
_SUBJECTS = ("a man", "two women", "the child", "an old dog", "a horse", "the band", "one chef")
_ACTIONS = ("rides", "paints", "throws", "cooks", "sings", "repairs", "carries", "looks for")
_PLACES = ("in a kitchen", "on the stage", "under a bridge", "beside the river", "in a red field")
WORDS = (*_SUBJECTS, *_ACTIONS, *_PLACES)


def main() -> None:
    """Measure alternately, print each round's ratio and their geometric mean."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    encode = bare_encoder(encoder_folder())
    client = Client(arguments.url, timeout=120.0)
    generator = random.Random(arguments.seed)  # noqa: S311 made-up queries
    ratios = []
    for number in range(arguments.rounds + 1):
        served, bare = queries(generator), queries(generator)
        requested = _seconds(lambda texts: _request(client, texts), served)
        encoded = _seconds(encode, bare)
        if number:  # the first round warms up
            ratios.append(requested / encoded)
            print(f"request {requested:.2f} s, bare encoder {encoded:.2f} s: {ratios[-1]:.2f}")
    mean = statistics.geometric_mean(ratios)
    print(
        f"a request of {QUERIES} queries takes {mean:.2f} of the bare encoder's time "
        f"({min(ratios):.2f} to {max(ratios):.2f} in {len(ratios)} rounds)"
    )


def encoder_folder() -> Path:
    """Return the folder of the embedded model's encoder."""
    repository = ModelRepository([embedded_root()])
    folder = repository.locate(repository.find("video-qpp")).weights
    assert folder is not None
    return folder


def queries(generator: random.Random) -> list[str]:
    """Return made-up queries of about 4 to 24 words."""
    return [
        " ".join(generator.choices(WORDS, k=round(generator.triangular(4, 12, 5))))
        for _ in range(QUERIES)
    ]


def bare_encoder(folder: Path) -> Callable[[Sequence[str]], None]:
    """Return a function that embeds texts with plain Transformers and discards the embeddings."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding()
    model: Any = BertModel.from_pretrained(folder, local_files_only=True)
    model.eval()

    def encode(texts: Sequence[str]) -> None:
        ordered = sorted(texts, key=len)
        for start in range(0, len(ordered), BATCH_SIZE):
            encodings = tokenizer.encode_batch(ordered[start : start + BATCH_SIZE])
            ids = torch.tensor([encoding.ids for encoding in encodings])
            mask = torch.tensor([encoding.attention_mask for encoding in encodings])
            with torch.inference_mode():
                model(input_ids=ids, attention_mask=mask)

    return encode


def _request(client: Client, texts: Sequence[str]) -> None:
    items = [{"query": text, "collection": "msrvtt"} for text in texts]
    reply = client.score("video-qpp", items)
    if reply.usage.computed < 0.99 * len(texts):
        raise SystemExit(f"only {reply.usage.computed} of {len(texts)} queries were computed")


def _seconds(run: Callable[[Sequence[str]], None], texts: Sequence[str]) -> float:
    started = time.perf_counter()
    run(texts)
    return time.perf_counter() - started


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.large_qpp_request",
        description="A thousand queries in one request, against the bare encoder.",
        epilog=EXAMPLE,
    )
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="where Assay serves")
    parser.add_argument("--rounds", type=int, default=9, help="after the first, which warms up (9)")
    parser.add_argument("--threads", type=int, default=2, help="of the bare encoder (2)")
    parser.add_argument("--seed", type=int, default=1, help="of the queries; others next time (1)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
