"""Checkpoints with random weights, saved the ordinary way, and the cards that serve them."""

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BatchEncoding,
    BertConfig,
    BertForSequenceClassification,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForSequenceClassification,
)

from assay_models.base import RewardModel
from assay_models.families.classifier.model import LocalClassifier
from assay_models.registry import Runtime, family_of
from assay_models.repository import ModelRepository

Kind = Literal["bert", "deberta", "modernbert", "qwen3", "llama"]
Pad = Literal["own", "eos", "none"]

KINDS: tuple[Kind, ...] = ("bert", "deberta", "modernbert", "qwen3", "llama")
ENCODERS: frozenset[Kind] = frozenset(("bert", "deberta", "modernbert"))
DECODERS: frozenset[Kind] = frozenset(("qwen3", "llama"))
MERGES = ("th", "in", "er", "re", "on", "the", "ing", "Ġt", "Ġa", "Ġthe", "<|", "|>")

TEXTS = ("a short one", "and a longer one, of some more tokens than that, and a bit")
TEMPLATE = (
    "{{ bos_token or '' }}{% for message in messages %}"
    "{% if message.role == 'tool' %}{{ raise_exception('no tools here') }}{% endif %}"
    "{% if message.role == 'assistant' and not loop.last %}"
    "{% set content = message.content.split('</think>')[-1] %}"
    "{% else %}{% set content = message.content %}{% endif %}"
    "<|im_start|>{{ message.role }}\n{{ content }}{{ eos_token }}\n{% endfor %}"
)

_WIDTH: Mapping[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
}
_RELATIVE_ATTENTION: Mapping[str, Any] = {
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "position_buckets": 16,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "type_vocab_size": 0,
}


def build_checkpoint(
    kind: Kind,
    folder: Path,
    *,
    num_labels: int = 1,
    labels: Sequence[str] | None = None,
    pad: Pad = "own",
    padding_side: Literal["left", "right"] = "right",
    template: str | None = TEMPLATE,
    with_head: bool = True,
    max_tokens: int = 256,
    options: Mapping[str, object] | None = None,
    family: str = "sequence_classifier",
    seed: int = 7,
    dtype: torch.dtype = torch.float32,
    config: Mapping[str, Any] | None = None,
) -> Path:
    """Build a checkpoint in `folder/weights` and its card in `folder`, and return the folder.

    `pad` chooses the padding token: a separate token, EOS, or none at all (decoders only).
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer(kind, pad=pad, padding_side=padding_side, template=template)
    torch.manual_seed(seed)
    named = {"id2label": dict(enumerate(labels))} if labels else {"num_labels": num_labels}
    model = _model(kind, tokenizer, {**named, **(config or {})})
    widen_weights(model)
    saved = model if with_head else model.base_model
    saved.to(dtype).save_pretrained(folder / "weights")
    tokenizer.save_pretrained(folder / "weights")
    write_card(folder, family=family, max_tokens=max_tokens, options=options or {})
    return folder


def write_card(
    folder: Path,
    *,
    weights: str = 'source = "folder"\npath = "weights"',
    family: str = "sequence_classifier",
    max_tokens: int = 256,
    options: Mapping[str, object] | None = None,
) -> None:
    """Write the card of `tiny@1`, by default with its weights in a folder beside it."""
    lines = [
        f'name = "tiny"\nversion = 1\nfamily = "{family}"',
        f"[weights]\n{weights}",
        f"[limits]\nmax_tokens = {max_tokens}",
        "[options]",
        *(f"{name} = {_toml(value)}" for name, value in (options or {}).items()),
    ]
    (folder / "card.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def load_classifier(
    folder: Path, dtype: str = "float32", *, model: str = "tiny"
) -> LocalClassifier:
    """Load the classifier that the families share, through the card in `folder`."""
    repository = ModelRepository([folder])
    entry = repository.find(model)
    return LocalClassifier.load(entry.card, repository.locate(entry), Runtime(dtype=dtype))


def load_model(folder: Path, dtype: str = "float32") -> RewardModel:
    """Load the model of the card in `folder`, by its family."""
    repository = ModelRepository([folder])
    entry = repository.find("tiny")
    return family_of(entry.card).load(entry.card, repository.locate(entry), Runtime(dtype=dtype))


def logits_of(classifier: LocalClassifier, texts: Sequence[str] = TEXTS) -> list[list[float]]:
    """Return the logits of each text, computed in one batch."""
    inputs = [classifier.encode_text(text, None, "error").input() for text in texts]
    return [list(row) for row in classifier.logits(inputs)]


def approximately(expected: list[float]) -> Any:
    """Return an approximation that allows for fp32 rounding."""
    return pytest.approx(expected, abs=1e-5, rel=0)


class PlainTransformers:
    """The checkpoint in `folder` run by Transformers alone: one sequence at a time, no padding."""

    def __init__(self, folder: Path) -> None:
        weights = folder / "weights"
        self.tokenizer = AutoTokenizer.from_pretrained(weights)
        model = AutoModelForSequenceClassification.from_pretrained(weights, dtype=torch.float32)
        self.model = model.eval()

    def text(self, text: str, text_pair: str | None = None, **options: Any) -> list[float]:
        """Return the logits of a text or a pair."""
        return self._logits(self.tokenizer(text, text_pair, return_tensors="pt", **options))

    def chat(self, messages: Sequence[Mapping[str, str]]) -> list[float]:
        """Return the logits of a conversation under the checkpoint's own template."""
        inputs = self.tokenizer.apply_chat_template(
            [dict(message) for message in messages], return_tensors="pt", return_dict=True
        )
        assert isinstance(inputs, BatchEncoding)
        return self._logits(inputs)

    def _logits(self, inputs: Mapping[str, Any]) -> list[float]:
        with torch.no_grad():
            logits: list[float] = self.model(**inputs).logits[0].tolist()
        return logits


def save_adapter(
    folder: Path,
    *,
    head: str = "score",
    targets: tuple[str, ...] = ("q_proj", "v_proj", "up_proj"),
    base: PreTrainedModel | None = None,
) -> PeftModel:
    """Save a random adapter over the weights in `folder`, in `folder/adapter`."""
    torch.manual_seed(11)
    if base is None:
        base = AutoModelForSequenceClassification.from_pretrained(folder / "weights", num_labels=1)
    config = LoraConfig(
        task_type="SEQ_CLS", r=4, target_modules=list(targets), modules_to_save=[head]
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        adapted = get_peft_model(base, config)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                parameter.normal_(0.0, 0.2)
    adapted.save_pretrained(str(folder / "adapter"), save_embedding_layers=False)
    return adapted.eval()


def build_tokenizer(
    kind: Kind,
    *,
    pad: Pad = "own",
    padding_side: Literal["left", "right"] = "right",
    template: str | None = TEMPLATE,
) -> PreTrainedTokenizerFast:
    """Build a tokenizer of the same type as the architecture's own, over letters or bytes."""
    if kind in DECODERS:
        return _decoder_tokenizer(kind, pad, padding_side, template)
    special = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    backend = _bytes_backend(tokens) if kind == "modernbert" else _letters_backend(tokens)
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, backend.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
    )
    inputs = ["input_ids", "attention_mask"]
    if kind != "modernbert":
        inputs.insert(1, "token_type_ids")
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="[UNK]",
        mask_token="[MASK]",
        padding_side=padding_side,
        model_input_names=inputs,
        **special,
    )


def _decoder_tokenizer(
    kind: Kind, pad: Pad, padding_side: str, template: str | None
) -> PreTrainedTokenizerFast:
    llama = kind == "llama"
    eos = "</s>" if llama else "<|im_end|>"
    backend = _bytes_backend(["<pad>", "<s>", eos, "<|im_start|>"])
    backend.add_tokens(["<think>", "</think>"])
    if llama:
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>" if llama else None,
        eos_token=eos,
        pad_token={"own": "<pad>", "eos": eos, "none": None}[pad],
        padding_side=padding_side,
        model_input_names=["input_ids", "attention_mask"],
        chat_template=template,
    )


def _bytes_backend(special: Sequence[str]) -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: at for at, piece in enumerate([*special, *alphabet])}
    merges: list[tuple[str, str]] = []
    for word in MERGES:
        left, right = word[:-1], word[-1]
        if word == "ing":
            left, right = "in", "g"
        if word == "Ġthe":
            left, right = "Ġt", "he"
        if left in vocabulary and right in vocabulary:
            merges.append((left, right))
            vocabulary[word] = len(vocabulary)
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(list(special))
    return backend


def _letters_backend(special: Sequence[str]) -> Tokenizer:
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,?!()[]<>/|"
    pieces = [*special, *letters, *(f"##{letter}" for letter in letters)]
    vocabulary = {piece: at for at, piece in enumerate(pieces)}
    backend = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.add_special_tokens(list(special))
    return backend


def _model(kind: Kind, tokenizer: PreTrainedTokenizerFast, extra: Mapping[str, Any]) -> Any:
    shared = {
        **_WIDTH,
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "max_position_embeddings": 512,
    }
    if kind == "bert":
        return BertForSequenceClassification(BertConfig(**{**shared, **extra}))
    if kind == "deberta":
        config = DebertaV2Config(**{**shared, **_RELATIVE_ATTENTION, **extra})
        return DebertaV2ForSequenceClassification(config)
    if kind == "modernbert":
        own = {"cls_token_id": 2, "sep_token_id": 3, "local_attention": 16}
        return ModernBertForSequenceClassification(ModernBertConfig(**{**shared, **own, **extra}))
    grouped = {**shared, "num_key_value_heads": 2, "head_dim": 8}
    if kind == "qwen3":
        return Qwen3ForSequenceClassification(Qwen3Config(**{**grouped, **extra}))
    return LlamaForSequenceClassification(LlamaConfig(**{**grouped, **extra}))


def widen_weights(model: Any) -> None:
    """Draw weights wide enough for texts to differ; the usual ones give nearly the same logits."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, 0.3)
            elif "norm" not in name.lower():
                parameter.normal_(0.0, 0.1)


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml(part) for part in value) + "]"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{name} = {_toml(part)}" for name, part in value.items()) + " }"
    return json.dumps(value) if isinstance(value, str) else str(value)


class Classifiers(dict[Kind, LocalClassifier]):
    """One classifier of each architecture, for 40 tokens."""

    def __repr__(self) -> str:
        return "Classifiers()"
