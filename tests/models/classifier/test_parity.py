"""Raws equal those of plain Transformers: alone, in any batch, whatever the padding."""

from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from support.checkpoints import (
    DECODERS,
    KINDS,
    Kind,
    Pad,
    PlainTransformers,
    build_checkpoint,
    load_classifier,
)

from assay_models.base import DeviceOutOfMemory, Input
from assay_models.items import Message

pytestmark = pytest.mark.weights

TEXTS = (
    "a",
    "the river bends to the north",
    "Zwölf Boxkämpfer: ¿qué? 七 \U0001f642",
    "def area(r):\n    return 3.14 * r ** 2  # in square metres\n" * 4,
    "numbers 1 2 3, [brackets] and the rest of it " * 3,
)
CHATS = (
    [{"role": "user", "content": "Name a river."}, {"role": "assistant", "content": "The Ems."}],
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "And the longest one there is, in the north?\n"},
        {"role": "assistant", "content": "  I do not know it; nobody measured it. " * 3},
    ],
    [{"role": "user", "content": ""}],
)
VARIANTS = [
    *((kind, "own", side) for kind in KINDS for side in ("left", "right")),
    *((kind, pad, "right") for kind in sorted(DECODERS) for pad in ("eos", "none")),
    ("qwen3", "eos", "left"),
]


def close(expected: list[float]) -> Any:
    return pytest.approx(expected, abs=1e-5, rel=0)


@pytest.mark.parametrize(("kind", "pad", "side"), VARIANTS)
def test_texts_score_as_in_plain_transformers(
    tmp_path: Path, kind: Kind, pad: Pad, side: Literal["left", "right"]
) -> None:
    folder = build_checkpoint(kind, tmp_path, pad=pad, padding_side=side)
    plain, classifier = PlainTransformers(folder), load_classifier(folder)
    expected = [plain.text(text) for text in TEXTS]
    inputs = [classifier.encode_text(text, None, "error").input() for text in TEXTS]
    alone = [list(classifier.logits([row])[0]) for row in inputs]
    together = [list(row) for row in classifier.logits(inputs)]
    assert len({round(logits[0], 3) for logits in expected}) == len(TEXTS)
    for ours, batched, theirs in zip(alone, together, expected, strict=True):
        assert ours == close(theirs)
        assert batched == close(theirs)


@pytest.mark.parametrize(
    ("kind", "pad", "side"), [variant for variant in VARIANTS if variant[0] in DECODERS]
)
def test_conversations_score_as_in_plain_transformers(
    tmp_path: Path, kind: Kind, pad: Pad, side: Literal["left", "right"]
) -> None:
    folder = build_checkpoint(kind, tmp_path, pad=pad, padding_side=side)
    plain, classifier = PlainTransformers(folder), load_classifier(folder)
    inputs = []
    for chat in CHATS:
        messages = [Message(**message) for message in chat]
        inputs.append(classifier.encode_chat(messages, "error").input())
    rows = classifier.logits(inputs)
    for row, chat in zip(rows, CHATS, strict=True):
        assert list(row) == close(plain.chat(chat))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_labels", [1, 3])
def test_pairs_score_as_in_plain_transformers(tmp_path: Path, kind: Kind, num_labels: int) -> None:
    folder = build_checkpoint(kind, tmp_path, num_labels=num_labels)
    plain, classifier = PlainTransformers(folder), load_classifier(folder)
    pairs = [("who went there?", "nobody, in the end"), ("one", "two " * 30), ("alone", "")]
    rows = classifier.logits(
        [classifier.encode_text(text, pair, "error").input() for text, pair in pairs]
    )
    for row, (text, pair) in zip(rows, pairs, strict=True):
        if kind == "llama" and pair:
            ids = plain.tokenizer(text)["input_ids"] + plain.tokenizer(pair)["input_ids"][1:]
            expected = plain.model(input_ids=torch.tensor([ids])).logits[0].tolist()
        else:
            expected = plain.text(text, pair)
        assert list(row) == close(expected)
        assert len(row) == num_labels


@pytest.mark.parametrize("pad", ["own", "eos", "none"])
@pytest.mark.parametrize("kind", sorted(DECODERS))
@pytest.mark.parametrize("text", ["before {eos} and after", "closed{eos}", "{eos}{eos}", "{eos}"])
def test_special_tokens_in_a_rendered_text_score_as_in_plain_transformers(
    tmp_path: Path, kind: Kind, pad: Pad, text: str
) -> None:
    folder = build_checkpoint(kind, tmp_path, pad=pad)
    plain, classifier = PlainTransformers(folder), load_classifier(folder)
    text = text.format(eos=plain.tokenizer.eos_token)
    encoded = classifier.encode_text(text, None, "error", "parse")
    longer = classifier.encode_text("something much longer than that", None, "error")
    assert plain.tokenizer.eos_token_id in encoded.ids
    row, _ = classifier.logits([encoded.input(), longer.input()])
    assert list(row) == close(plain.text(text))


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_in_a_plain_text_are_encoded_as_letters(tmp_path: Path, kind: Kind) -> None:
    folder = build_checkpoint(kind, tmp_path)
    plain, classifier = PlainTransformers(folder), load_classifier(folder)
    special = plain.tokenizer.eos_token or plain.tokenizer.sep_token
    text = f"before {special} and after {special}"
    encoded = classifier.encode_text(text, None, "error")
    by_hand = plain.tokenizer(text, split_special_tokens=True)["input_ids"]
    assert list(encoded.ids) == by_hand
    assert list(encoded.ids) != plain.tokenizer(text)["input_ids"]
    expected = plain.text(text, split_special_tokens=True)
    assert list(classifier.logits([encoded.input()])[0]) == close(expected)


@pytest.mark.parametrize("pad", ["own", "eos"])
def test_pooling_last_reads_the_last_token_even_if_it_is_padding(tmp_path: Path, pad: Pad) -> None:
    folder = build_checkpoint("qwen3", tmp_path, pad=pad, options={"pooling": "last"})
    plain, classifier = PlainTransformers(folder), load_classifier(folder)
    text = "closed<|im_end|>"
    encoded = classifier.encode_text(text, None, "error", "parse")
    row = classifier.logits([encoded.input()])[0]
    with torch.no_grad():
        hidden = plain.model.model(input_ids=torch.tensor([encoded.ids])).last_hidden_state
        expected = plain.model.score(hidden[0, -1]).tolist()
    assert list(row) == close(expected)
    assert (list(row) == close(plain.text(text))) == (pad == "own")


HEADS: dict[Kind, tuple[str, ...]] = {
    "bert": ("bert.pooler.dense", "classifier"),
    "deberta": ("pooler.dense", "classifier"),
    "modernbert": ("head.dense", "head.norm", "classifier"),
    "qwen3": ("score",),
    "llama": ("score",),
}


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_a_bf16_body_has_an_fp32_head(tmp_path: Path, kind: Kind, stored: torch.dtype) -> None:
    folder = build_checkpoint(kind, tmp_path, num_labels=2, dtype=stored)
    plain, classifier = PlainTransformers(folder), load_classifier(folder, "bfloat16")
    model = classifier.model
    for name in HEADS[kind]:
        ours, theirs = (part.get_submodule(name).weight for part in (model, plain.model))
        assert ours.dtype == torch.float32
        assert torch.equal(ours, theirs)
    rounded = {name for name, part in model.named_parameters() if part.dtype == torch.bfloat16}
    assert {name for name, _ in model.named_parameters()} - rounded == {
        f"{head}.{part}"
        for head in HEADS[kind]
        for part, _ in model.get_submodule(head).named_parameters()
    }
    assert all(buffer.dtype != torch.bfloat16 for buffer in model.buffers())
    rows = classifier.logits(
        [classifier.encode_text(text, None, "error").input() for text in TEXTS]
    )
    for row, text in zip(rows, TEXTS, strict=True):
        assert list(row) == pytest.approx(plain.text(text), abs=0.3)
    values = torch.tensor(rows, dtype=torch.float32)
    assert not torch.equal(values, values.bfloat16().float())


def test_raws_do_not_depend_on_the_order_of_a_batch(tmp_path: Path) -> None:
    folder = build_checkpoint("llama", tmp_path, pad="none")
    classifier = load_classifier(folder)
    texts = ["x y z " * length for length in (1, 40, 2, 17, 3, 33, 1)]
    inputs: list[Input] = [classifier.encode_text(text, None, "error").input() for text in texts]
    alone = [classifier.logits([row])[0] for row in inputs]
    backwards = classifier.logits(inputs[::-1])[::-1]
    for single, batched in zip(alone, backwards, strict=True):
        assert list(single) == close(list(batched))


def test_a_full_device_raises_device_out_of_memory(tmp_path: Path) -> None:
    classifier = load_classifier(build_checkpoint("bert", tmp_path))
    row = classifier.encode_text("a", None, "error").input()

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("no room")

    handle = classifier.model.base_model.register_forward_pre_hook(full)
    with pytest.raises(DeviceOutOfMemory):
        classifier.logits([row])
    handle.remove()
    assert classifier.logits([row])
