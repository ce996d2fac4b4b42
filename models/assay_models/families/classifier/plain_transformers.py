"""A program: logits of rows of token ids by plain Transformers, in fp32, from stdin to stdout."""

import json
import sys
from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification


def main() -> None:
    """Read a folder, the number of labels or null, and rows; write one list of logits a row."""
    request = json.load(sys.stdin)
    config = AutoConfig.from_pretrained(
        request["folder"], local_files_only=True, trust_remote_code=False
    )
    if request["labels"] is not None:
        config.num_labels = request["labels"]
    model: Any = AutoModelForSequenceClassification.from_pretrained(
        request["folder"],
        config=config,
        dtype=torch.float32,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
    )
    json.dump([_logits(model.eval(), *row) for row in request["rows"]], sys.stdout)


def _logits(model: Any, ids: Sequence[int], type_ids: Sequence[int] | None) -> list[float]:
    batch = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids))}
    if type_ids is not None:
        batch["token_type_ids"] = torch.tensor([type_ids])
    with torch.inference_mode():
        logits: list[float] = model(**batch).logits[0].float().tolist()
    return logits


if __name__ == "__main__":
    main()
