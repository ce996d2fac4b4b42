"""The right scores: plain Transformers, each text alone and unpadded, in fp32; kept in a file.

Run as `python -m benchmarks.truth WEIGHTS TEXTS SCORES`.
"""

import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from benchmarks.models import MADE, Checkpoint
from benchmarks.texts import Text, as_plain, check_counts, from_plain

REPORT_EVERY = 500


def true_scores(found: Checkpoint, texts: Sequence[Text], cache: Path) -> list[float]:
    """The scores of texts, computed by a process of its own unless a file holds them already."""
    plain = json.dumps(as_plain(texts))
    digest = hashlib.sha256(f"{MADE}{torch.__version__}{found.name}{plain}".encode()).hexdigest()
    scores = cache / "truth" / f"{found.name}-{digest[:20]}.json"
    if not scores.is_file():
        scores.parent.mkdir(parents=True, exist_ok=True)
        asked = scores.with_suffix(".texts")
        asked.write_text(plain, encoding="utf-8")
        command = [sys.executable, "-m", "benchmarks.truth", str(found.weights)]
        subprocess.run([*command, str(asked), str(scores)], check=True)  # noqa: S603
        asked.unlink()
    known: list[float] = json.loads(scores.read_text(encoding="utf-8"))
    return known


def main(weights: str, asked: str, scores: str) -> None:
    """Score the texts in a file into another."""
    torch.set_num_threads(1)
    tokenizer: Any = AutoTokenizer.from_pretrained(weights)
    model: Any = AutoModelForSequenceClassification.from_pretrained(weights, dtype=torch.float32)
    model.eval()
    texts = from_plain(json.loads(Path(asked).read_text(encoding="utf-8")))
    check_counts(texts, tokenizer)
    found = []
    for at, text in enumerate(texts, start=1):
        inputs = tokenizer(text.prompt, text.response, return_tensors="pt")
        with torch.inference_mode():
            found.append(float(model(**inputs).logits[0, 0]))
        if at % REPORT_EVERY == 0:
            print(f"  right scores: {at} of {len(texts)}", file=sys.stderr, flush=True)
    unfinished = Path(scores).with_suffix(".unfinished")
    unfinished.write_text(json.dumps(found), encoding="utf-8")
    unfinished.rename(scores)


if __name__ == "__main__":
    main(*sys.argv[1:4])
