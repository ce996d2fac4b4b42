"""The expected scores: plain Transformers, each text alone and unpadded, in fp32; cached in a file.

Run as `python -m benchmarks.expected_scores WEIGHTS TEXTS SCORES`.
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

from benchmarks.models import REVISION, Checkpoint
from benchmarks.texts import Text, check_token_counts, from_json_rows, to_json_rows

REPORT_EVERY = 500


def expected_scores(checkpoint: Checkpoint, texts: Sequence[Text], cache: Path) -> list[float]:
    """Return the scores of texts, computed by a separate process unless they are cached."""
    rows = json.dumps(to_json_rows(texts))
    key = f"{REVISION}{torch.__version__}{checkpoint.name}{rows}"
    digest = hashlib.sha256(key.encode()).hexdigest()
    scores_path = cache / "truth" / f"{checkpoint.name}-{digest[:20]}.json"
    if not scores_path.is_file():
        scores_path.parent.mkdir(parents=True, exist_ok=True)
        texts_path = scores_path.with_suffix(".texts")
        texts_path.write_text(rows, encoding="utf-8")
        command = [sys.executable, "-m", "benchmarks.expected_scores", str(checkpoint.weights)]
        subprocess.run([*command, str(texts_path), str(scores_path)], check=True)  # noqa: S603
        texts_path.unlink()
    scores: list[float] = json.loads(scores_path.read_text(encoding="utf-8"))
    return scores


def main(weights: str, texts_path: str, scores_path: str) -> None:
    """Score the texts in one file and write the scores to another."""
    torch.set_num_threads(1)
    tokenizer: Any = AutoTokenizer.from_pretrained(weights)
    model: Any = AutoModelForSequenceClassification.from_pretrained(weights, dtype=torch.float32)
    model.eval()
    texts = from_json_rows(json.loads(Path(texts_path).read_text(encoding="utf-8")))
    check_token_counts(texts, tokenizer)
    scores = []
    for number, text in enumerate(texts, start=1):
        inputs = tokenizer(text.prompt, text.response, return_tensors="pt")
        with torch.inference_mode():
            scores.append(float(model(**inputs).logits[0, 0]))
        if number % REPORT_EVERY == 0:
            print(f"  expected scores: {number} of {len(texts)}", file=sys.stderr, flush=True)
    unfinished = Path(scores_path).with_suffix(".unfinished")
    unfinished.write_text(json.dumps(scores), encoding="utf-8")
    unfinished.rename(scores_path)


if __name__ == "__main__":
    main(*sys.argv[1:4])
