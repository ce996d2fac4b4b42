"""Short queries, rewrites of them of all kinds, and a tokenizer with one token a word."""

import random
from itertools import product

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

WHO = ("man", "woman", "boy", "girl", "dog", "cat")
DOES = ("runs", "sings", "dances", "swims", "jumps", "sleeps")
LOOKS = ("in a red coat", "with a white hat", "in a blue shirt")
PLACES = ("in a kitchen", "on a beach", "on a stage", "in a pool", "in a park", "on a sofa")
BESIDES = ("at night", "in the rain", "while a crowd claps", "with two friends", "to loud music")
TEMPLATE = "rewrite : {} ;"
SPECIAL = ("<pad>", "<end>", "<unk>")

ORIGINALS = tuple(f"a {who} {does}" for who, does in product(WHO, DOES))


def rewrite(chance: random.Random, original: str) -> str:
    """The query with some details; one in four has strayed to another doer or another deed."""
    _, who, does = original.split()
    if chance.random() < 1 / 8:
        who = chance.choice(WHO)
    if chance.random() < 1 / 8:
        does = chance.choice(DOES)
    parts = [f"a {who}", does]
    if chance.random() < 1 / 3:
        parts.insert(1, chance.choice(LOOKS))
    if chance.random() < 1 / 3:
        parts.append(chance.choice(PLACES))
    parts += chance.sample(BESIDES, chance.choice((0, 0, 1, 2)))
    return " ".join(parts)


def tokenizer() -> PreTrainedTokenizerFast:
    """Every word that can be said."""
    said = (*ORIGINALS, *LOOKS, *PLACES, *BESIDES, TEMPLATE.format(""))
    words = dict.fromkeys(word for text in said for word in text.split())
    vocabulary = {word: place for place, word in enumerate((*SPECIAL, *words))}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))  # noqa: S106 a token's name
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",  # noqa: S106 a token's name
        eos_token="<end>",  # noqa: S106 a token's name
        unk_token="<unk>",  # noqa: S106 a token's name
        padding_side="left",
    )
