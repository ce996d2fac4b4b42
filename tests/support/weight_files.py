"""Files of weights besides a saved checkpoint: a GGUF, and changed tensors over a base model."""

from pathlib import Path

import numpy as np
import torch
from gguf import GGUFWriter
from safetensors.torch import save_file
from torch import Tensor

from support.checkpoints import build_tokenizer

FILE = "tiny.gguf"
WIDTH, INNER, HEADS, LAYERS = 32, 48, 4, 3


def write_gguf(path: Path) -> None:
    """Write a random Llama of three layers with the vocabulary of the tests' tokenizer."""
    tokenizer = build_tokenizer("llama")
    vocabulary = tokenizer.get_vocab()
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(512)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types(
        [3 if token.startswith("<") and len(token) > 2 else 1 for token in tokens]
    )
    writer.add_token_merges(["t h", "i n", "e r"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    random = np.random.default_rng(5)
    for name, shape in _shapes(len(tokens)).items():
        values = np.ones(shape) if "norm" in name else random.normal(0, 0.3, shape)
        writer.add_tensor(name, values.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _shapes(words: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (words, WIDTH),
        "output_norm.weight": (WIDTH,),
        "output.weight": (words, WIDTH),
    }
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            shapes[f"{block}.{part}.weight"] = (WIDTH, WIDTH)
        for part in ("ffn_gate", "ffn_up"):
            shapes[f"{block}.{part}.weight"] = (INNER, WIDTH)
        shapes[f"{block}.ffn_down.weight"] = (WIDTH, INNER)
        shapes[f"{block}.attn_norm.weight"] = (WIDTH,)
        shapes[f"{block}.ffn_norm.weight"] = (WIDTH,)
    return shapes


CHANGED = {"changed": "changed.safetensors", "num_labels": 1}


def save_changed(folder: Path, **own: Tensor) -> dict[str, Tensor]:
    """Save other weights for one layer and the head, in half precision, beside the card."""
    torch.manual_seed(13)
    shapes = {
        "bert.encoder.layer.1.output.dense.weight": (32, 48),
        "classifier.weight": (1, 32),
        "classifier.bias": (1,),
    }
    state = {name: torch.randn(shape).half() for name, shape in shapes.items()} | own
    save_file(state, folder / "changed.safetensors")
    return state
