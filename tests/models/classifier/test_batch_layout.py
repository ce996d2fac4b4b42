"""Packed rows, shared prefixes and bit-equality: the numbers of plain Transformers, and costs."""

import dataclasses
import logging
import math
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.checkpoints import Kind, PlainTransformers, build_checkpoint, load_classifier
from support.tiers import NIGHTLY
from torch import Tensor, nn

from assay_models.base import Input
from assay_models.card import CardError
from assay_models.families.classifier import (
    onednn_linear,
    packed_attention,
    parity,
)
from assay_models.families.classifier.batch_layout import (
    PackedLayout,
    PaddedLayout,
    SingleRowLayout,
)
from assay_models.families.classifier.model import LocalClassifier
from assay_models.families.classifier.onednn_linear import PrepackedLinear
from assay_models.families.classifier.packed_attention import (
    MIN_SHARED_TOKENS,
    PackedBatch,
    Segment,
    pack,
    packed_tokens,
)
from assay_models.families.classifier.token_sequence import TokenSequence
from assay_models.registry import Runtime
from assay_models.repository import ModelRepository

pytestmark = pytest.mark.weights

# A thousand take a minute.
BATCHINGS = 1000 if NIGHTLY else 200
LENGTHS = (2, 40, 3, 17, 96, 5, 2, 64)
PACKING: tuple[Kind, ...] = ("bert", "qwen3", "llama")
PADDING: tuple[Kind, ...] = ("deberta", "modernbert")


def rows(
    lengths: Sequence[int], *, beginning: Sequence[int] = (), prefix_key: bytes = b""
) -> list[Input]:
    """Make rows of seeded tokens, each of its length, all with one beginning."""
    chance = np.random.default_rng(11)
    made = []
    for length in lengths:
        own = chance.integers(10, 60, length - len(beginning)).tolist()
        ids = array("i", [*beginning, *own])
        sequence = TokenSequence(ids, array("i", bytes(4 * length)), prefix_key=prefix_key)
        made.append(sequence.input())
    return made


def packed_batch(inputs: Sequence[Input]) -> PackedBatch:
    return pack(inputs, torch.device("cpu"), is_causal=True, shares_prefixes=True, max_tokens=100)


def load(folder: Path, *, deterministic: bool = False) -> LocalClassifier:
    repository = ModelRepository([folder])
    entry = repository.find("tiny")
    runtime = Runtime(deterministic=deterministic)
    return LocalClassifier.load(entry.card, repository.locate(entry), runtime)


def plain_logits(folder: Path, inputs: Sequence[Input]) -> Tensor:
    """Compute each row alone by plain Transformers."""
    plain = PlainTransformers(folder)
    ids = [torch.tensor([list(row.payload.ids)]) for row in inputs]
    with torch.no_grad():
        return torch.cat([plain.model(input_ids=row).logits for row in ids])


def logits_and_counts(
    classifier: LocalClassifier, inputs: Sequence[Input]
) -> tuple[Tensor, list[int]]:
    """Compute logits, and count the tokens that each forward pass embeds."""
    counts: list[int] = []

    def count(_: nn.Module, arguments: tuple[Any, ...], __: Any) -> None:
        counts.append(arguments[0].numel())

    handle = classifier.model.get_input_embeddings().register_forward_hook(count)
    raws = torch.tensor(classifier.logits(inputs))
    handle.remove()
    return raws, counts


@pytest.mark.parametrize("kind", PACKING)
def test_packed_rows_score_as_in_plain_transformers_and_nothing_is_padded(
    tmp_path: Path, kind: Kind
) -> None:
    folder = build_checkpoint(kind, tmp_path)
    classifier, inputs = load_classifier(folder), rows(LENGTHS)
    assert isinstance(classifier.layout, PackedLayout)
    raws, computed = logits_and_counts(classifier, inputs)
    assert computed == [sum(LENGTHS)] == [classifier.cost(inputs)]
    torch.testing.assert_close(raws, plain_logits(folder, inputs), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", PADDING)
def test_architectures_that_cannot_be_packed_are_padded(tmp_path: Path, kind: Kind) -> None:
    classifier, inputs = load_classifier(build_checkpoint(kind, tmp_path)), rows(LENGTHS)
    assert isinstance(classifier.layout, PaddedLayout)
    _, computed = logits_and_counts(classifier, inputs)
    assert computed[0] == len(LENGTHS) * max(LENGTHS) == classifier.cost(inputs)


@pytest.mark.parametrize("kind", ["qwen3", "llama"])
def test_a_shared_prefix_is_computed_once(tmp_path: Path, kind: Kind) -> None:
    folder = build_checkpoint(kind, tmp_path)
    classifier = load_classifier(folder)
    prompt = list(range(20, 55)) * 2
    group = rows([100] * 8, beginning=prompt, prefix_key=b"p")
    others = [*rows([31, 55], beginning=prompt[:30], prefix_key=b"q"), *rows([9])]
    inputs = [group[0], *others, *group[1:]]
    raws, computed = logits_and_counts(classifier, inputs)
    assert computed == [70 + 8 * 30 + 30 + 1 + 25 + 9] == [classifier.cost(inputs)]
    torch.testing.assert_close(raws, plain_logits(folder, inputs), rtol=0, atol=1e-5)


def test_a_group_with_a_long_shared_prompt_costs_less_than_half(tmp_path: Path) -> None:
    classifier = load_classifier(
        build_checkpoint(
            "qwen3", tmp_path, max_tokens=1000, config={"max_position_embeddings": 1000}
        )
    )
    group = rows([1000] * 8, beginning=[7] * 700, prefix_key=b"p")
    _, (computed,) = logits_and_counts(classifier, group)
    assert computed / 8000 <= 0.45


def test_rows_with_one_prefix_key_that_begin_differently_share_nothing(tmp_path: Path) -> None:
    folder = build_checkpoint("qwen3", tmp_path)
    classifier, inputs = (
        load_classifier(folder),
        [dataclasses.replace(row, prefix_key=b"k") for row in rows((40, 41, 42))],
    )
    raws, computed = logits_and_counts(classifier, inputs)
    assert computed == [123]
    torch.testing.assert_close(raws, plain_logits(folder, inputs), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", PACKING)
def test_candidates_of_one_prompt_have_one_prefix_key_where_that_helps(
    tmp_path: Path, kind: Kind
) -> None:
    classifier = load_classifier(build_checkpoint(kind, tmp_path))
    pairs = [("one prompt", "a"), ("one prompt", "b"), ("another", "a")]
    first, second, third = (classifier.encode_text(*pair, "error").prefix_key for pair in pairs)
    assert first == second
    assert (first != third) == (kind != "bert")
    assert (first != b"") == (kind != "bert")


@settings(derandomize=True, max_examples=200)
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(1, 40), st.integers(0, 60)), min_size=1, max_size=9
    )
)
def test_a_packed_batch_holds_each_token_of_each_row_once(
    shapes: list[tuple[int, int, int]],
) -> None:
    inputs: list[Input] = []
    for first, own, begin in shapes:
        beginning = [first * 1000 + place for place in range(begin)]
        ids = array("i", [*beginning, *(9000 + len(inputs) for _ in range(own))])
        inputs.append(TokenSequence(ids, prefix_key=b"" if first == 0 else bytes([first])).input())
    packed = packed_batch(inputs)
    assert len(packed.token_order) == packed_tokens(inputs, True) == packed.segments[-1].end
    packed_ids = [inputs[row].payload.ids[index] for row, index in packed.token_order]
    for row, sequence in zip(inputs, packed.sequences, strict=True):
        expected = list(row.payload.ids)
        assert [packed_ids[sequence.position(index)] for index in range(row.tokens)] == expected
        segment = next(part for part in packed.segments if part.start == sequence.own_start)
        begin, end = segment.prefix
        own_ids = packed_ids[segment.start : segment.end]
        assert [*packed_ids[begin:end], *own_ids] == expected
    costs = [packed_tokens(inputs[:count], True) for count in range(1, len(inputs) + 1)]
    assert costs == sorted(costs)


def test_a_short_prefix_is_not_shared() -> None:
    inputs = rows([60, 60], beginning=[5] * (MIN_SHARED_TOKENS - 1), prefix_key=b"k")
    assert packed_batch(inputs).segments == (Segment(0, 60), Segment(60, 120))


def test_bounds_for_ragged_kernels_hold_queries_and_keys() -> None:
    inputs = [*rows([50, 30], beginning=[5] * 20, prefix_key=b"k"), *rows([7])]
    queries, keys, index, longest_query, longest_key = packed_batch(inputs).bounds
    assert queries.tolist() == [0, 20, 50, 60, 67]
    assert keys.tolist() == [0, 20, 70, 100, 107]
    assert index[20:70].tolist() == [*range(20), *range(20, 50)]
    assert index[70:100].tolist() == [*range(20), *range(50, 60)]
    assert (longest_query, longest_key) == (30, 50)


@pytest.mark.parametrize(
    "arguments",
    [{"softcap": 30.0}, {"sliding_window": 99}, {"s_aux": 1.0}, {"packed_batch": None}],
)
def test_attention_refuses_arguments_that_it_does_not_support(arguments: dict[str, Any]) -> None:
    states = torch.zeros(1, 2, 100, 8)
    arguments = {"packed_batch": packed_batch(rows([100])), **arguments}
    with pytest.raises(packed_attention.CannotPack):
        packed_attention.packed_attention(nn.Identity(), states, states, states, None, **arguments)


def test_a_sliding_window_as_long_as_the_longest_row_is_ignored(tmp_path: Path) -> None:
    window: dict[str, Any] = {"sliding_window": 64, "use_sliding_window": True}
    window |= {"max_window_layers": 0, "layer_types": ["sliding_attention"] * 3}
    narrow = build_checkpoint("qwen3", tmp_path / "narrow", config=window, max_tokens=65)
    wide = build_checkpoint("qwen3", tmp_path / "wide", config=window, max_tokens=64)
    assert isinstance(load_classifier(narrow).layout, PaddedLayout)
    assert isinstance(load_classifier(wide).layout, PackedLayout)


def width_without_vector_tails() -> int:
    return 32 * math.lcm(*range(1, torch.get_num_threads() + 1))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["bert", "qwen3"])
def test_many_batchings_of_two_hundred_rows_give_the_same_bits(tmp_path: Path, kind: Kind) -> None:
    width = width_without_vector_tails()
    config = {"hidden_size": width, "intermediate_size": 3 * width, "num_hidden_layers": 1}
    config |= {"head_dim": width, "num_attention_heads": 2, "num_key_value_heads": 1}
    classifier = load(build_checkpoint(kind, tmp_path, config=config), deterministic=True)
    assert isinstance(classifier.layout, PackedLayout)
    lengths = np.random.default_rng(3).geometric(0.12, 200).clip(2, 120).tolist()
    with torch.inference_mode():
        assert parity.is_bit_equal(classifier.layout, rows(lengths), batchings=BATCHINGS)


@pytest.mark.parametrize("kind", PADDING)
def test_architectures_that_cannot_be_packed_are_bit_equal_one_row_at_a_time(
    tmp_path: Path, kind: Kind
) -> None:
    classifier = load(build_checkpoint(kind, tmp_path), deterministic=True)
    assert isinstance(classifier.layout, SingleRowLayout)
    with torch.inference_mode():
        assert parity.is_bit_equal(classifier.layout, rows(LENGTHS), batchings=20)


def test_widths_with_vector_tails_are_computed_one_row_at_a_time(tmp_path: Path) -> None:
    classifier = load(build_checkpoint("qwen3", tmp_path), deterministic=True)
    assert isinstance(classifier.layout, SingleRowLayout)
    with torch.inference_mode():
        assert parity.is_bit_equal(classifier.layout, rows(LENGTHS), batchings=50)


def test_a_deterministic_model_shares_no_prefixes(tmp_path: Path) -> None:
    classifier = load(build_checkpoint("qwen3", tmp_path), deterministic=True)
    group = rows([50] * 4, beginning=[7] * 40, prefix_key=b"p")
    assert classifier.cost(group) == 200
    assert classifier.encode_text("a prompt", "an answer", "error").prefix_key == b""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_bit_equal_scores_have_a_fingerprint_of_their_own(tmp_path: Path) -> None:
    folder = build_checkpoint("bert", tmp_path)
    parts = [load(folder, deterministic=value).fingerprint_parts for value in (False, True)]
    assert "deterministic" not in parts[0]
    environment = parts[1]["deterministic"]
    assert isinstance(environment, tuple)
    name, library, *_ = environment
    assert (name, library) == ("alone", torch.__version__)


def test_a_model_whose_bits_change_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = build_checkpoint("bert", tmp_path)
    honest, calls = PaddedLayout.logits, iter(range(10**6))

    def noisy(self: PaddedLayout, inputs: Sequence[Input]) -> Tensor:
        return honest(self, inputs) + 1e-6 * next(calls)

    monkeypatch.setattr(PaddedLayout, "logits", noisy)
    monkeypatch.setattr(packed_attention, "packed_attention", None)
    with pytest.raises(CardError, match="not deterministic on cpu"):
        load(folder, deterministic=True)


@pytest.mark.parametrize("broken", ["wrong", "raises"])
def test_packed_rows_with_wrong_numbers_are_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = build_checkpoint("qwen3", tmp_path)

    def attention(module: nn.Module, query: Tensor, *_: Any, **__: Any) -> tuple[Tensor, None]:
        if broken == "raises":
            raise packed_attention.CannotPack("nothing")
        return query.transpose(1, 2), None

    monkeypatch.setattr(packed_attention, "packed_attention", attention)
    caplog.set_level(logging.INFO)
    classifier = load_classifier(folder)
    assert isinstance(classifier.layout, PaddedLayout)
    assert "padded batches" in caplog.text
    raws = torch.tensor(classifier.logits(rows(LENGTHS)))
    torch.testing.assert_close(raws, plain_logits(folder, rows(LENGTHS)), rtol=0, atol=1e-5)


def layers_of(classifier: LocalClassifier) -> set[type]:
    modules = classifier.model.base_model.named_modules()
    return {
        type(module)
        for name, module in modules
        if isinstance(module, nn.Linear | PrepackedLinear) and not name.startswith("pooler")
    }


def test_prepacked_layers_with_wrong_numbers_are_replaced_by_the_original_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = build_checkpoint("bert", tmp_path)
    assert layers_of(load_classifier(folder)) == {PrepackedLinear}
    honest = PrepackedLinear.forward
    monkeypatch.setattr(PrepackedLinear, "forward", lambda self, x: 1.01 * honest(self, x))
    assert layers_of(load_classifier(folder)) == {nn.Linear}


@pytest.mark.parametrize("by_head", [True, False])
def test_candidates_score_as_in_plain_transformers_by_either_attention(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_head: bool
) -> None:
    capability = "AVX512" if by_head else "AVX2"
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    folder = build_checkpoint("qwen3", tmp_path)
    classifier = load_classifier(folder)
    assert isinstance(classifier.layout, PackedLayout)
    honest, calls = packed_attention._attend_by_head, []

    def counted(*arguments: Tensor) -> Tensor:
        calls.append(arguments)
        return honest(*arguments)

    monkeypatch.setattr(packed_attention, "_attend_by_head", counted)
    group = rows([60] * 4, beginning=[7] * 40, prefix_key=b"p")
    raws = torch.tensor(classifier.logits(group))
    layers = classifier.model.config.num_hidden_layers
    assert len(calls) == (layers * len(group) if by_head else 0)
    torch.testing.assert_close(raws, plain_logits(folder, group), rtol=0, atol=1e-5)


def test_a_processor_without_bf16_kernels_keeps_its_bf16_layers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    classifier = load_classifier(build_checkpoint("bert", tmp_path), "bfloat16")
    assert layers_of(classifier) == {nn.Linear}
    assert len(classifier.logits(rows(LENGTHS))) == len(LENGTHS)


def test_without_the_operators_layers_are_not_prepacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = build_checkpoint("bert", tmp_path)
    monkeypatch.setattr(onednn_linear, "is_available", lambda: False)
    assert layers_of(load_classifier(folder)) == {nn.Linear}
