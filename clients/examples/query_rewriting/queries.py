"""Short queries, random rewrites of them, and a tokenizer with one token for each word."""

import random
from itertools import product

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

SUBJECTS = ("man", "woman", "boy", "girl", "dog", "cat")
VERBS = ("runs", "sings", "dances", "swims", "jumps", "sleeps")
CLOTHES = ("in a red coat", "with a white hat", "in a blue shirt")
PLACES = ("in a kitchen", "on a beach", "on a stage", "in a pool", "in a park", "on a sofa")
DETAILS = ("at night", "in the rain", "while a crowd claps", "with two friends", "to loud music")
TEMPLATE = "rewrite : {} ;"
SPECIAL = ("<pad>", "<end>", "<unk>")

ORIGINALS = tuple(f"a {subject} {verb}" for subject, verb in product(SUBJECTS, VERBS))


def rewrite(rng: random.Random, original: str) -> str:
    """Return the query with some details; one in four has another subject or another verb."""
    _, subject, verb = original.split()
    if rng.random() < 1 / 8:
        subject = rng.choice(SUBJECTS)
    if rng.random() < 1 / 8:
        verb = rng.choice(VERBS)
    parts = [f"a {subject}", verb]
    if rng.random() < 1 / 3:
        parts.insert(1, rng.choice(CLOTHES))
    if rng.random() < 1 / 3:
        parts.append(rng.choice(PLACES))
    parts += rng.sample(DETAILS, rng.choice((0, 0, 1, 2)))
    return " ".join(parts)


def tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of all words of queries and rewrites."""
    texts = (*ORIGINALS, *CLOTHES, *PLACES, *DETAILS, TEMPLATE.format(""))
    words = dict.fromkeys(word for text in texts for word in text.split())
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
