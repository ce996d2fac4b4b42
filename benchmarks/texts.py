"""The scored texts: whole words of a vocabulary, with known token counts."""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, cast

ModelName = Literal["encoder", "decoder"]

MEDIAN_TOKENS, SIGMA = 96, 0.8
MIN_TOKENS, MAX_TOKENS = 20, 512
PROMPT_TOKENS, RESPONSE_TOKENS, GROUP_SIZE = 700, 300, 8
PROMPT_WORDS = 8
SHORT_ITEM_TOKENS, CACHED_ITEM_TOKENS = 24, 50


class TokenizerLike(Protocol):
    """The part of a Transformers tokenizer that this module needs."""

    def get_vocab(self) -> Mapping[str, int]:
        """Return tokens and their ids."""

    def __call__(self, text: list[str]) -> Mapping[str, Any]:
        """Return token ids of each text."""


@dataclass(frozen=True, slots=True)
class Text:
    """An item: a response and the prompt it answers. `tokens` includes the special ones."""

    prompt: str
    response: str
    tokens: int

    @property
    def whole(self) -> str:
        """The text for a system that takes only one."""
        return self.prompt + self.response


def to_json_rows(texts: Iterable[Text]) -> list[dict[str, Any]]:
    """Convert texts to JSON values."""
    return [asdict(text) for text in texts]


def from_json_rows(rows: Iterable[Mapping[str, Any]]) -> list[Text]:
    """Convert the values of `to_json_rows` to texts."""
    return [Text(row["prompt"], row["response"], row["tokens"]) for row in rows]


class Words:
    """Whole words that are one token each for a tokenizer, so that a text's tokens are known."""

    def __init__(self, model: ModelName, tokenizer: TokenizerLike) -> None:
        self._prefix = " " if model == "decoder" else ""
        self._special_tokens = 3 if model == "encoder" else 0
        self._words = _single_token_words(model, tokenizer)

    def prompt(self, words: int, generator: random.Random) -> str:
        """Return a prompt of `words` words."""
        return self._prefix + " ".join(generator.choices(self._words, k=words))

    def answer(self, prompt: str, tokens: int, generator: random.Random) -> Text:
        """Return a response to a prompt; the two together have `tokens` tokens."""
        words = tokens - self._special_tokens - len(prompt.split())
        return Text(prompt, self.prompt(words, generator), tokens)


def long_tailed(words: Words, count: int, seed: int, siblings: int = 1) -> list[Text]:
    """Return distinct texts with log-normal lengths: most are short, a few are long.

    Each run of `siblings` texts answers one prompt.
    """
    generator = random.Random(seed)  # noqa: S311
    return _answers(words, draw_lengths(count, generator), generator, siblings)


def draw_lengths(count: int, generator: random.Random) -> list[int]:
    """Draw log-normal token counts, clipped to the limits of the encoder."""
    drawn = (round(MEDIAN_TOKENS * generator.lognormvariate(0.0, SIGMA)) for _ in range(count))
    return [min(MAX_TOKENS, max(MIN_TOKENS, length)) for length in drawn]


def of_length(words: Words, tokens: int, *, count: int, seed: int, siblings: int = 1) -> list[Text]:
    """Return distinct texts of one length; each run of `siblings` answers one prompt."""
    generator = random.Random(seed)  # noqa: S311
    return _answers(words, [tokens] * count, generator, siblings)


def groups(words: Words, count: int, seed: int) -> list[Text]:
    """Return groups of candidates, one after another, each with a long prompt of its own."""
    generator = random.Random(seed)  # noqa: S311
    texts: list[Text] = []
    for _ in range(count):
        prompt = words.prompt(PROMPT_TOKENS, generator)
        tokens = PROMPT_TOKENS + RESPONSE_TOKENS
        texts += [words.answer(prompt, tokens, generator) for _ in range(GROUP_SIZE)]
    return texts


def check_token_counts(texts: Sequence[Text], tokenizer: Any) -> None:
    """Check that every text has the stated number of tokens.

    Raises:
        ValueError: a text has another number.
    """
    for text in texts:
        ids = tokenizer(text.prompt, text.response)["input_ids"]
        if len(ids) != text.tokens:
            raise ValueError(f"a text of {text.tokens} tokens has {len(ids)}")


def _answers(
    words: Words, lengths: Sequence[int], generator: random.Random, siblings: int
) -> list[Text]:
    texts: list[Text] = []
    for at, length in enumerate(lengths):
        prompt = texts[-1].prompt if at % siblings else words.prompt(PROMPT_WORDS, generator)
        texts.append(words.answer(prompt, length, generator))
    return texts


def _single_token_words(model: ModelName, tokenizer: TokenizerLike) -> list[str]:
    mark = "Ġ" if model == "decoder" else ""
    candidates = sorted(
        token.removeprefix(mark)
        for token in tokenizer.get_vocab()
        if token.startswith(mark) and _is_word(token.removeprefix(mark))
    )
    prefix = " " if model == "decoder" else ""
    encoded = tokenizer([prefix + word for word in candidates])["input_ids"]
    special_tokens = 2 if model == "encoder" else 0
    rows = zip(candidates, cast(Sequence[Sequence[int]], encoded), strict=True)
    return [word for word, ids in rows if len(ids) == 1 + special_tokens]


def _is_word(token: str) -> bool:
    return len(token) >= 3 and token.isascii() and token.isalpha() and token.islower()
