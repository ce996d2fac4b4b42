"""What is scored: texts of known token counts, drawn from whole words of a vocabulary."""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, cast

ModelName = Literal["encoder", "decoder"]

MEDIAN, SIGMA = 96, 0.8
SHORTEST, LONGEST = 20, 512
PROMPT_TOKENS, RESPONSE_TOKENS, GROUP_SIZE = 700, 300, 8
PROMPT_WORDS = 8
SHORT_ITEM, CACHED_ITEM = 24, 50


class Tokenizes(Protocol):
    """As much of a Transformers tokenizer as this module needs."""

    def get_vocab(self) -> Mapping[str, int]:
        """Tokens and their ids."""

    def __call__(self, text: list[str]) -> Mapping[str, Any]:
        """Token ids of each text."""


@dataclass(frozen=True, slots=True)
class Text:
    """One item: a response and the prompt it answers. `tokens` counts the special ones too."""

    prompt: str
    response: str
    tokens: int

    @property
    def whole(self) -> str:
        """What a system reads that takes one text only."""
        return self.prompt + self.response


def as_plain(texts: Iterable[Text]) -> list[dict[str, Any]]:
    """Texts as JSON takes them."""
    return [asdict(text) for text in texts]


def from_plain(rows: Iterable[Mapping[str, Any]]) -> list[Text]:
    """Texts as `as_plain` wrote them."""
    return [Text(row["prompt"], row["response"], row["tokens"]) for row in rows]


class Words:
    """Whole words that a tokenizer takes for one token each, so that a text's tokens are known."""

    def __init__(self, model: ModelName, tokenizer: Tokenizes) -> None:
        self._prefix = " " if model == "decoder" else ""
        self._frame = 3 if model == "encoder" else 0
        self._words = _single_tokens(model, tokenizer)

    def prompt(self, words: int, draw: random.Random) -> str:
        """A prompt of so many words."""
        return self._prefix + " ".join(draw.choices(self._words, k=words))

    def answer(self, prompt: str, tokens: int, draw: random.Random) -> Text:
        """A response to a prompt, the two together of so many tokens."""
        words = tokens - self._frame - len(prompt.split())
        return Text(prompt, self.prompt(words, draw), tokens)


def long_tailed(words: Words, count: int, seed: int, siblings: int = 1) -> list[Text]:
    """Distinct texts with log-normal lengths: most are short, a few are long.

    Each run of `siblings` texts answers one prompt.
    """
    draw = random.Random(seed)  # noqa: S311
    found: list[Text] = []
    for at, length in enumerate(lengths(count, draw)):
        shared = found[-1].prompt if at % siblings else words.prompt(PROMPT_WORDS, draw)
        found.append(words.answer(shared, length, draw))
    return found


def lengths(count: int, draw: random.Random) -> list[int]:
    """Log-normal token counts, clipped to what the encoder takes."""
    drawn = (round(MEDIAN * draw.lognormvariate(0.0, SIGMA)) for _ in range(count))
    return [min(LONGEST, max(SHORTEST, length)) for length in drawn]


def of_length(words: Words, tokens: int, count: int, seed: int, siblings: int = 1) -> list[Text]:
    """Distinct texts of one length; each run of `siblings` answers one prompt."""
    draw = random.Random(seed)  # noqa: S311
    found: list[Text] = []
    for at in range(count):
        shared = found[-1].prompt if at % siblings else words.prompt(PROMPT_WORDS, draw)
        found.append(words.answer(shared, tokens, draw))
    return found


def groups(words: Words, count: int, seed: int) -> list[Text]:
    """Groups of candidates, one after another, each with a long prompt of its own."""
    draw = random.Random(seed)  # noqa: S311
    found: list[Text] = []
    for _ in range(count):
        shared = words.prompt(PROMPT_TOKENS, draw)
        long = PROMPT_TOKENS + RESPONSE_TOKENS
        found += [words.answer(shared, long, draw) for _ in range(GROUP_SIZE)]
    return found


def check_counts(texts: Sequence[Text], tokenizer: Any) -> None:
    """Make sure that every text has the tokens it says.

    Raises:
        ValueError: one has not.
    """
    for text in texts:
        ids = tokenizer(text.prompt, text.response)["input_ids"]
        if len(ids) != text.tokens:
            raise ValueError(f"a text of {text.tokens} tokens has {len(ids)}")


def _single_tokens(model: ModelName, tokenizer: Tokenizes) -> list[str]:
    mark = "Ġ" if model == "decoder" else ""
    candidates = sorted(
        token.removeprefix(mark)
        for token in tokenizer.get_vocab()
        if token.startswith(mark) and _is_word(token.removeprefix(mark))
    )
    prefix = " " if model == "decoder" else ""
    encoded = tokenizer([prefix + word for word in candidates])["input_ids"]
    frame = 2 if model == "encoder" else 0
    rows = zip(candidates, cast(Sequence[Sequence[int]], encoded), strict=True)
    return [word for word, ids in rows if len(ids) == 1 + frame]


def _is_word(token: str) -> bool:
    return len(token) >= 3 and token.isascii() and token.isalpha() and token.islower()
