"""A policy so small that it trains in seconds, and whose every token is a thing worth scoring."""

from collections.abc import Sequence

import torch
from tokenizers import Tokenizer, decoders, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

PAD, END = "<pad>", "<end>"


def tokenizer_of(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """Each of these texts is one token; there are no others but padding and the end."""
    vocabulary = {text: number for number, text in enumerate([PAD, END, *texts])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token=PAD))
    words.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token=PAD, eos_token=END)


def policy_of(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """Two layers of width 32, at random: it writes any token after any other."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    return LlamaForCausalLM(config)
