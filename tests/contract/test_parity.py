"""Parity over HTTP: checkpoints of five architectures, served by a card, have the scores that plain
Transformers computes for each sequence alone.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import httpx2
import numpy as np
import pytest
from support.checkpoints import DECODERS, KINDS, Kind, Pad, PlainTransformers, build_checkpoint
from support.servers import Served

from assay.settings import Settings

pytestmark = pytest.mark.weights

TEXTS = (
    "one",
    "a longer text, for the padding of the others",
    "def f(x):\n    return x + 1\n" * 5,
    "<s> a text that starts with BOS",
    "the end </s>",
)
Side = Literal["left", "right"]
SIDES: tuple[Side, ...] = ("left", "right")


def variants() -> Iterator[tuple[Kind, Pad, Side]]:
    yield from ((kind, "own", side) for kind in KINDS for side in SIDES)
    yield from ((kind, "eos", "right") for kind in sorted(DECODERS))
    yield from ((kind, "none", "left") for kind in sorted(DECODERS))


async def scores(client: httpx2.AsyncClient, items: list[dict[str, Any]]) -> list[float]:
    answer = await client.post("/v1/score", json={"model": "tiny", "items": items})
    assert answer.status_code == 200, answer.text
    results = answer.json()["results"]
    assert [result["error"] for result in results] == [None] * len(items)
    return [result["score"] for result in results]


@pytest.mark.parametrize(("kind", "pad", "side"), list(variants()))
async def test_scores_over_http_equal_plain_transformers(
    served: Served, tmp_path: Path, kind: Kind, pad: Pad, side: Side
) -> None:
    options = {"text_special_tokens": "parse"}
    folder = build_checkpoint(kind, tmp_path, pad=pad, padding_side=side, options=options)
    plain = PlainTransformers(folder)
    bos = plain.tokenizer.bos_token
    expected = [plain.text(text.removeprefix(bos) if bos else text)[0] for text in TEXTS]
    settings = Settings(models=("tiny",), repository=(tmp_path,), cache_bytes=0)
    items = [{"text": text} for text in TEXTS]
    async with served(settings) as client:
        batched = await scores(client, items)
        alone = [(await scores(client, [item]))[0] for item in items]
    assert batched == pytest.approx(expected, abs=1e-5, rel=0)
    assert alone == pytest.approx(expected, abs=1e-5, rel=0)
    assert len({round(score, 4) for score in expected}) == len(TEXTS)


@pytest.mark.parametrize("kind", sorted(DECODERS))
async def test_conversations_over_http_equal_plain_transformers_within_rounding(
    served: Served, tmp_path: Path, kind: Kind
) -> None:
    folder = build_checkpoint(kind, tmp_path, pad="eos")
    answers = ["Four.", "It is four, I think, and not five.", "4"]
    answers += [
        " ".join(["four is not five"] * count) + mark for count in (1, 2, 5) for mark in ".?!"
    ]
    chats = [
        [{"role": "user", "content": "Two and two?"}, {"role": "assistant", "content": answer}]
        for answer in answers
    ]
    plain, exact = PlainTransformers(folder), PlainTransformers(folder)
    exact.model.double()
    expected = np.array([exact.chat(chat)[0] for chat in chats])
    # With weights of this scale, float32 itself may deviate by more than 1e-5.
    rounding = np.abs([plain.chat(chat)[0] for chat in chats] - expected)
    settings = Settings(models=("tiny",), repository=(tmp_path,), cache_bytes=0)
    conversations = [{"messages": chat} for chat in chats]
    pairs = [{"prompt": "Two and two?", "response": answer} for answer in answers]
    async with served(settings) as client:
        for items in (conversations, pairs):
            error = np.abs(await scores(client, items) - expected)
            assert error.mean() < 5e-6
            assert error.max() < 1e-5 + rounding.max()
