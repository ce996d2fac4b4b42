"""Items of every family, of random lengths up to a model's limit, none of them twice."""

import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

GROUP_SIZES, GROUP_WEIGHTS = (1, 8, 64), (16, 4, 1)
MIN_TOKENS = 20
# What a model's template adds to the words of an item, rounded up.
TEMPLATE_TOKENS = 48
LINE_TOKENS = 6
SENTENCE_WORDS = 12
MAX_RESULTS, MAX_EMBEDDED_RESULTS, EMBEDDING_WIDTH = 1000, 64, 64
# Each is one token for the tokenizers of the embedded models, and none is a keyword of Python.
WORDS = """
time year people way day man thing woman life child world school state family student group
country problem hand part place case week company system program question work number night
point home water room mother area money story fact month lot right study book eye job word
business issue side kind head house service friend father power hour game line end member law
car city community name president team minute idea body information back parent face others
level office door health person art war history party result change morning reason research
girl guy moment air teacher force education
""".split()  # noqa: SIM905

Item = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Target:
    """A served model, its family, and the limit of tokens of one item."""

    model: str
    family: str
    max_tokens: int


def draw_length(draw: random.Random, limit: int) -> int:
    """Draw a token count from `MIN_TOKENS` to `limit`, uniform in its logarithm."""
    exponent = draw.uniform(math.log(MIN_TOKENS), math.log(limit + 1))
    return min(limit, max(MIN_TOKENS, int(math.exp(exponent))))


def text_of(draw: random.Random, tokens: int) -> str:
    """Return a text of `tokens` words."""
    return " ".join(draw.choices(WORDS, k=tokens))


def program_of(draw: random.Random, tokens: int) -> str:
    """Return a Python function of about `tokens` tokens, in a fenced block."""
    names = [draw.choices(WORDS, k=3) for _ in range(max(1, tokens // LINE_TOKENS))]
    lines = "".join(f"    {target} = {left} + {right}\n" for target, left, right in names)
    return f"```python\ndef solve(time, year):\n{lines}    return time\n```\n"


def _prompt_and_lengths(draw: random.Random, limit: int, size: int) -> tuple[str, list[int]]:
    """Return a prompt, and the tokens of each response to it."""
    shared = draw_length(draw, limit // 4)
    rest = limit - shared - TEMPLATE_TOKENS
    return text_of(draw, shared), [draw_length(draw, rest) for _ in range(size)]


def code_items(draw: random.Random, limit: int, size: int) -> list[Item]:
    """Return programs for one problem."""
    prompt, lengths = _prompt_and_lengths(draw, limit, size)
    return [{"prompt": prompt, "response": program_of(draw, length)} for length in lengths]


def nli_items(draw: random.Random, limit: int, size: int) -> list[Item]:
    """Return claims about one premise; every fourth request has evidence that is read in chunks."""
    shared = draw_length(draw, limit // 2)
    rest = limit - shared - TEMPLATE_TOKENS
    claims = [text_of(draw, draw_length(draw, rest)) for _ in range(size)]
    if size < max(GROUP_SIZES) and draw.random() < 1 / 4:
        sentences = [text_of(draw, SENTENCE_WORDS) for _ in range(2 * shared // SENTENCE_WORDS)]
        evidence = "".join(f"{sentence.capitalize()}. " for sentence in sentences)
        return [{"evidence": evidence, "claims": [claim]} for claim in claims]
    premise = text_of(draw, shared)
    return [{"premise": premise, "hypothesis": claim} for claim in claims]


def video_items(draw: random.Random, limit: int, size: int) -> list[Item]:
    """Return queries."""
    lengths = [draw_length(draw, limit - TEMPLATE_TOKENS) for _ in range(size)]
    return [{"query": text_of(draw, length)} for length in lengths]


def retrieval_items(draw: random.Random, limit: int, size: int) -> list[Item]:
    """Return queries with their retrieved lists, the short ones with embeddings."""
    lengths = [draw_length(draw, min(limit, MAX_RESULTS)) for _ in range(size)]
    return [
        {"query": text_of(draw, 8), "results": _results(draw, length), "depth": length}
        for length in lengths
    ]


def _results(draw: random.Random, count: int) -> list[Item]:
    scores = sorted((draw.random() for _ in range(count)), reverse=True)
    if count > MAX_EMBEDDED_RESULTS:
        return [{"score": score} for score in scores]
    return [
        {"score": score, "embedding": [draw.random() for _ in range(EMBEDDING_WIDTH)]}
        for score in scores
    ]


def text_items(draw: random.Random, limit: int, size: int) -> list[Item]:
    """Return responses to one prompt."""
    prompt, lengths = _prompt_and_lengths(draw, limit, size)
    return [{"prompt": prompt, "response": text_of(draw, length)} for length in lengths]


ITEMS_OF_FAMILY: Mapping[str, Callable[[random.Random, int, int], list[Item]]] = {
    "code": code_items,
    "nli": nli_items,
    "video_qpp": video_items,
    "retrieval_qpp": retrieval_items,
}


def request_body(draw: random.Random, targets: Sequence[Target]) -> bytes:
    """Return the body of a request to a model drawn at random."""
    target = draw.choice(targets)
    (size,) = draw.choices(GROUP_SIZES, GROUP_WEIGHTS)
    items_of = ITEMS_OF_FAMILY.get(target.family, text_items)
    items = items_of(draw, target.max_tokens, size)
    return json.dumps({"model": target.model, "items": items}).encode()
