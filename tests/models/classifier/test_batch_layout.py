"""Packed rows, shared beginnings, bit-equality: numbers as in plain Transformers, at what cost."""

import dataclasses
import logging
import math
from array import array
from collections.abc import Callable, Sequence
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
from assay_models.families.classifier.batch_layout import Alone, Packed, Padded
from assay_models.families.classifier.model import Classifier
from assay_models.families.classifier.onednn_linear import PrepackedLinear
from assay_models.families.classifier.packed_attention import (
    LEAST_SHARED,
    Segment,
    lay_out,
    packed_tokens,
)
from assay_models.families.classifier.tokenization import Encoded
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
    """Rows of seeded tokens, each of its length, all with one beginning."""
    chance = np.random.default_rng(11)
    made = []
    for length in lengths:
        own = chance.integers(10, 60, length - len(beginning)).tolist()
        ids = array("i", [*beginning, *own])
        encoded = Encoded(ids, array("i", bytes(4 * length)), prefix_key=prefix_key)
        made.append(encoded.input())
    return made


def load(folder: Path, *, deterministic: bool = False) -> Classifier:
    repository = ModelRepository([folder])
    entry = repository.find("tiny")
    runtime = Runtime(deterministic=deterministic)
    return Classifier.load(entry.card, repository.locate(entry), runtime)


def plain_logits(folder: Path, inputs: Sequence[Input]) -> Tensor:
    """By plain Transformers, each row alone."""
    plain = PlainTransformers(folder)
    ids = [torch.tensor([list(one.payload.ids)]) for one in inputs]
    with torch.no_grad():
        return torch.cat([plain.model(input_ids=one).logits for one in ids])


def counting(classifier: Classifier) -> Callable[[Sequence[Input]], tuple[Tensor, list[int]]]:
    """Logits, and how many tokens each forward pass embedded."""

    def count(inputs: Sequence[Input]) -> tuple[Tensor, list[int]]:
        seen: list[int] = []

        def look(_: nn.Module, given: tuple[Any, ...], __: Any) -> None:
            seen.append(given[0].numel())

        handle = classifier.model.get_input_embeddings().register_forward_hook(look)
        raws = torch.tensor(classifier.logits(inputs))
        handle.remove()
        return raws, seen

    return count


@pytest.mark.parametrize("kind", PACKING)
def test_packed_rows_score_as_in_plain_transformers_and_nothing_is_padded(
    tmp_path: Path, kind: Kind
) -> None:
    folder = build_checkpoint(kind, tmp_path)
    classifier, inputs = load_classifier(folder), rows(LENGTHS)
    assert isinstance(classifier.arrangement, Packed)
    raws, computed = counting(classifier)(inputs)
    assert computed == [sum(LENGTHS)] == [classifier.cost(inputs)]
    torch.testing.assert_close(raws, plain_logits(folder, inputs), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", PADDING)
def test_what_cannot_be_packed_is_padded(tmp_path: Path, kind: Kind) -> None:
    classifier, inputs = load_classifier(build_checkpoint(kind, tmp_path)), rows(LENGTHS)
    assert isinstance(classifier.arrangement, Padded)
    _, computed = counting(classifier)(inputs)
    assert computed[0] == len(LENGTHS) * max(LENGTHS) == classifier.cost(inputs)


@pytest.mark.parametrize("kind", ["qwen3", "llama"])
def test_a_shared_beginning_is_computed_once(tmp_path: Path, kind: Kind) -> None:
    folder = build_checkpoint(kind, tmp_path)
    classifier = load_classifier(folder)
    prompt = list(range(20, 55)) * 2
    group = rows([100] * 8, beginning=prompt, prefix_key=b"p")
    others = [*rows([31, 55], beginning=prompt[:30], prefix_key=b"q"), *rows([9])]
    inputs = [group[0], *others, *group[1:]]
    raws, computed = counting(classifier)(inputs)
    assert computed == [70 + 8 * 30 + 30 + 1 + 25 + 9] == [classifier.cost(inputs)]
    torch.testing.assert_close(raws, plain_logits(folder, inputs), rtol=0, atol=1e-5)


def test_a_group_with_a_long_prompt_costs_less_than_half(tmp_path: Path) -> None:
    classifier = load_classifier(
        build_checkpoint(
            "qwen3", tmp_path, max_tokens=1000, config={"max_position_embeddings": 1000}
        )
    )
    group = rows([1000] * 8, beginning=[7] * 700, prefix_key=b"p")
    _, (computed,) = counting(classifier)(group)
    assert computed / 8000 <= 0.45


def test_rows_of_one_kin_that_begin_differently_share_nothing(tmp_path: Path) -> None:
    folder = build_checkpoint("qwen3", tmp_path)
    classifier, inputs = (
        load_classifier(folder),
        [dataclasses.replace(one, prefix_key=b"k") for one in rows((40, 41, 42))],
    )
    raws, computed = counting(classifier)(inputs)
    assert computed == [123]
    torch.testing.assert_close(raws, plain_logits(folder, inputs), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", PACKING)
def test_candidates_of_one_prompt_are_kin_where_that_helps(tmp_path: Path, kind: Kind) -> None:
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
def test_a_layout_holds_each_token_of_each_row_once(
    shapes: list[tuple[int, int, int]],
) -> None:
    inputs = []
    for first, own, begin in shapes:
        beginning = [first * 1000 + place for place in range(begin)]
        ids = array("i", [*beginning, *(9000 + len(inputs) for _ in range(own))])
        inputs.append(Encoded(ids, prefix_key=b"" if first == 0 else bytes([first])).input())
    layout = lay_out(inputs, True, True, 100, torch.device("cpu"))
    assert len(layout.order) == packed_tokens(inputs, sharing=True) == layout.segments[-1].end
    packed = [inputs[row].payload.ids[index] for row, index in layout.order]
    for one, place in zip(inputs, layout.places, strict=True):
        assert [packed[place.of(index)] for index in range(one.tokens)] == list(one.payload.ids)
        segment = next(part for part in layout.segments if part.start == place.rest)
        begin, end = segment.shared
        assert [*packed[begin:end], *packed[segment.start : segment.end]] == list(one.payload.ids)
    costs = [packed_tokens(inputs[:count], sharing=True) for count in range(1, len(inputs) + 1)]
    assert costs == sorted(costs)


def test_a_short_beginning_is_not_shared() -> None:
    inputs = rows([60, 60], beginning=[5] * (LEAST_SHARED - 1), prefix_key=b"k")
    layout = lay_out(inputs, True, True, 100, torch.device("cpu"))
    assert layout.segments == (Segment(0, 60), Segment(60, 120))


def test_a_ragged_kernel_is_told_the_bounds_of_queries_and_keys() -> None:
    inputs = [*rows([50, 30], beginning=[5] * 20, prefix_key=b"k"), *rows([7])]
    layout = lay_out(inputs, True, True, 100, torch.device("cpu"))
    queries, keys, index, longest_query, longest_key = layout.bounds
    assert queries.tolist() == [0, 20, 50, 60, 67]
    assert keys.tolist() == [0, 20, 70, 100, 107]
    assert index[20:70].tolist() == [*range(20), *range(20, 50)]
    assert index[70:100].tolist() == [*range(20), *range(50, 60)]
    assert (longest_query, longest_key) == (30, 50)


@pytest.mark.parametrize(
    "asked", [{"softcap": 30.0}, {"sliding_window": 99}, {"s_aux": 1.0}, {"layout": None}]
)
def test_attention_refuses_what_it_does_not_do(asked: dict[str, Any]) -> None:
    states = torch.zeros(1, 2, 100, 8)
    layout = lay_out(rows([100]), True, True, 100, torch.device("cpu"))
    with pytest.raises(packed_attention.CannotPack):
        packed_attention.packed_attention(
            nn.Identity(), states, states, states, None, **{"layout": layout, **asked}
        )


def test_a_window_as_long_as_the_longest_row_is_no_window(tmp_path: Path) -> None:
    window = {"sliding_window": 64, "use_sliding_window": True, "max_window_layers": 0}
    window["layer_types"] = ["sliding_attention"] * 3
    narrow = build_checkpoint("qwen3", tmp_path / "narrow", config=window, max_tokens=65)
    wide = build_checkpoint("qwen3", tmp_path / "wide", config=window, max_tokens=64)
    assert isinstance(load_classifier(narrow).arrangement, Padded)
    assert isinstance(load_classifier(wide).arrangement, Packed)


def lcm_of_threads() -> int:
    return 32 * math.lcm(*range(1, torch.get_num_threads() + 1))


@pytest.mark.parametrize("kind", ["bert", "qwen3"])
def test_many_batchings_of_two_hundred_rows_give_the_same_bits(tmp_path: Path, kind: Kind) -> None:
    width = lcm_of_threads()
    config = {"hidden_size": width, "intermediate_size": 3 * width, "num_hidden_layers": 1}
    config |= {"head_dim": width, "num_attention_heads": 2, "num_key_value_heads": 1}
    classifier = load(build_checkpoint(kind, tmp_path, config=config), deterministic=True)
    assert isinstance(classifier.arrangement, Packed)
    lengths = np.random.default_rng(3).geometric(0.12, 200).clip(2, 120).tolist()
    with torch.inference_mode():
        assert parity.same_bits(classifier.arrangement, rows(lengths), batchings=BATCHINGS)


@pytest.mark.parametrize("kind", PADDING)
def test_what_cannot_be_packed_is_bit_equal_one_row_at_a_time(tmp_path: Path, kind: Kind) -> None:
    classifier = load(build_checkpoint(kind, tmp_path), deterministic=True)
    assert isinstance(classifier.arrangement, Alone)
    with torch.inference_mode():
        assert parity.same_bits(classifier.arrangement, rows(LENGTHS), batchings=20)


def test_widths_that_leave_odd_elements_are_computed_one_row_at_a_time(tmp_path: Path) -> None:
    classifier = load(build_checkpoint("qwen3", tmp_path), deterministic=True)
    assert isinstance(classifier.arrangement, Alone)
    with torch.inference_mode():
        assert parity.same_bits(classifier.arrangement, rows(LENGTHS), batchings=50)


def test_candidates_share_nothing_where_bits_must_be_equal(tmp_path: Path) -> None:
    classifier = load(build_checkpoint("qwen3", tmp_path), deterministic=True)
    group = rows([50] * 4, beginning=[7] * 40, prefix_key=b"p")
    assert classifier.cost(group) == 200
    assert classifier.encode_text("a prompt", "an answer", "error").prefix_key == b""


def test_bit_equal_scores_have_a_fingerprint_of_their_own(tmp_path: Path) -> None:
    folder = build_checkpoint("bert", tmp_path)
    parts = [load(folder, deterministic=chosen).fingerprint_parts for chosen in (False, True)]
    assert "deterministic" not in parts[0]
    name, library, *_ = parts[1]["deterministic"]
    assert (name, library) == ("alone", torch.__version__)


def test_a_model_whose_bits_change_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = build_checkpoint("bert", tmp_path)
    honest, calls = Padded.logits, iter(range(10**6))

    def noisy(self: Padded, inputs: Sequence[Input]) -> Tensor:
        return honest(self, inputs) + 1e-6 * next(calls)

    monkeypatch.setattr(Padded, "logits", noisy)
    monkeypatch.setattr(packed_attention, "packed_attention", None)
    with pytest.raises(CardError, match="not deterministic on cpu"):
        load(folder, deterministic=True)


@pytest.mark.parametrize("broken", ["wrong", "raises"])
def test_a_packing_with_wrong_numbers_is_not_used(
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
    assert isinstance(classifier.arrangement, Padded)
    assert "padded batches" in caplog.text
    raws = torch.tensor(classifier.logits(rows(LENGTHS)))
    torch.testing.assert_close(raws, plain_logits(folder, rows(LENGTHS)), rtol=0, atol=1e-5)


def layers_of(classifier: Classifier) -> set[type]:
    modules = classifier.model.base_model.named_modules()
    return {
        type(module)
        for name, module in modules
        if isinstance(module, nn.Linear | PrepackedLinear) and not name.startswith("pooler")
    }


def test_layers_with_wrong_numbers_are_put_back(
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
    assert isinstance(classifier.arrangement, Packed)
    honest, calls = packed_attention._attend_by_head, []

    def counted(*given: Tensor) -> Tensor:
        calls.append(given)
        return honest(*given)

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


def test_without_the_operators_the_layers_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = build_checkpoint("bert", tmp_path)
    monkeypatch.setattr(onednn_linear, "available", lambda: False)
    assert layers_of(load_classifier(folder)) == {nn.Linear}
