"""Parity over HTTP: five architectures, saved the ordinary way and served by a card, answer what
plain Transformers computes for each sequence alone.
"""

from pathlib import Path
from typing import Any

import httpx2
import pytest
from checkpoints import DECODERS, KINDS, Kind, Pad, PlainTransformers, build_checkpoint
from conftest import Served

from assay.settings import Settings

# In fp32 and with weights as wide as these, kernels of different processors round differently: by
# 1.3e-5 at most so far.
ROUNDING = 2e-5

pytestmark = pytest.mark.weights

TEXTS = (
    "one",
    "a longer text, for the padding of the others",
    "def f(x):\n    return x + 1\n" * 5,
    "<s> a text that starts with BOS",
    "the end </s>",
)
VARIANTS: list[tuple[Kind, Pad, str]] = [
    *((kind, "own", side) for kind in KINDS for side in ("left", "right")),
    *((kind, "eos", "right") for kind in sorted(DECODERS)),
    *((kind, "none", "left") for kind in sorted(DECODERS)),
]


async def scores(client: httpx2.AsyncClient, items: list[dict[str, Any]]) -> list[float]:
    answer = await client.post("/v1/score", json={"model": "tiny", "items": items})
    assert answer.status_code == 200, answer.text
    results = answer.json()["results"]
    assert [result["error"] for result in results] == [None] * len(items)
    return [result["score"] for result in results]


@pytest.mark.parametrize(("kind", "pad", "side"), VARIANTS)
async def test_scores_over_http_equal_plain_transformers(
    served: Served, tmp_path: Path, kind: Kind, pad: Pad, side: str
) -> None:
    options = {"text_special_tokens": "parse"}
    folder = build_checkpoint(kind, tmp_path, pad=pad, padding_side=side, options=options)
    plain = PlainTransformers(folder)
    bos = plain.tokenizer.bos_token
    expected = [plain.text(text.removeprefix(bos) if bos else text)[0] for text in TEXTS]
    settings = Settings(models=("tiny",), repository=(tmp_path,), cache_bytes=0)
    items = [{"text": text} for text in TEXTS]
    async with served(settings) as client:
        together = await scores(client, items)
        alone = [(await scores(client, [item]))[0] for item in items]
    assert together == pytest.approx(expected, abs=ROUNDING, rel=0)
    assert alone == pytest.approx(expected, abs=ROUNDING, rel=0)
    assert len({round(score, 4) for score in expected}) == len(TEXTS)


@pytest.mark.parametrize("kind", sorted(DECODERS))
async def test_conversations_over_http_equal_plain_transformers(
    served: Served, tmp_path: Path, kind: Kind
) -> None:
    folder = build_checkpoint(kind, tmp_path, pad="eos")
    answers = ["Four.", "It is four, I think, and not five.", "4"]
    chats = [
        [{"role": "user", "content": "Two and two?"}, {"role": "assistant", "content": answer}]
        for answer in answers
    ]
    expected = [PlainTransformers(folder).chat(chat)[0] for chat in chats]
    settings = Settings(models=("tiny",), repository=(tmp_path,), cache_bytes=0)
    async with served(settings) as client:
        assert await scores(client, [{"messages": chat} for chat in chats]) == pytest.approx(
            expected, abs=ROUNDING, rel=0
        )
        pairs = [{"prompt": "Two and two?", "response": answer} for answer in answers]
        assert await scores(client, pairs) == pytest.approx(expected, abs=ROUNDING, rel=0)
