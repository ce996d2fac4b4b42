"""The recipe's parts on made-up queries: what a head learns from, and how its nets are joined."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from assay_models.families.qpp.features import FEATURES
from assay_models.families.qpp.heads import Net, columns_of, surroundings
from recipes.video_qpp.design import Known, by_ngrams, learning_inputs, make_basis, read
from recipes.video_qpp.fit import Tried, choose_penalty, choose_shares, fit_head
from recipes.video_qpp.nets import Shape, fit_nets, mixed, outputs
from recipes.video_qpp.predictors import (
    ALL_RIDGE,
    ALL_TREES,
    BLEND,
    CROWDING,
    LABELS,
    MINILM,
    TFIDF,
    WORD_TREES,
    Asked,
    predictions,
)

WIDTH = 160
PENALTY = 2.0
ANIMALS = ("fox", "hen", "cow", "owl", "cat", "dog", "bee", "ant", "ape", "yak")


@pytest.fixture(scope="module")
def known() -> Known:
    """Captions of ten animals: each animal is easy or hard, whatever is said of it."""
    chance = np.random.default_rng(3)
    animals = chance.integers(len(ANIMALS), size=300)
    texts = [f"a {ANIMALS[one]} number {number % 7}" for number, one in enumerate(animals)]
    centres = chance.normal(size=(len(ANIMALS), WIDTH))
    embeddings = centres[animals] + chance.normal(scale=0.3, size=(300, WIDTH))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    ease = chance.normal(size=(len(ANIMALS), 2))
    numbers, counts = read(texts)
    clusters = np.arange(300) // 6
    return Known(embeddings.astype(np.float32), numbers, counts, ease[animals], clusters)


def test_surroundings_are_those_of_the_formulas() -> None:
    chance = np.random.default_rng(1)
    cosines = chance.uniform(-0.2, 1.0, size=(2, 60))
    labels = chance.normal(size=(60, 1))
    found = surroundings(torch.from_numpy(cosines), torch.from_numpy(labels)).numpy()
    for row, given in zip(found, cosines, strict=True):
        ranked = sorted(given, reverse=True)
        bands = [ranked[0], *(np.mean(ranked[a:b]) for a, b in ((1, 4), (4, 16), (16, 50)))]
        around: list[float] = []
        for sharpness, doubt in ((8, 0.0), (16, 0.0), (32, 60e-5)):
            kernel = [math.exp(sharpness * (cosine - 1)) for cosine in given]
            told = sum(weight * label for weight, (label,) in zip(kernel, labels, strict=True))
            around += [math.log(sum(kernel) / 60), told / (sum(kernel) + doubt)]
        assert row == pytest.approx([*bands, *around], abs=1e-9)


def test_a_query_meets_neither_itself_nor_its_cluster_while_it_is_learnt_from(
    known: Known,
) -> None:
    basis = make_basis(known, PENALTY)
    nearest = WIDTH + len(FEATURES)
    apart = learning_inputs(basis, known, PENALTY)[:, nearest]
    itself = basis.inputs(known)[:, nearest]
    assert itself == pytest.approx(np.ones(300), abs=1e-3)
    assert (apart < itself - 0.01).all()
    twins = dataclasses.replace(known, embeddings=known.embeddings[np.arange(300) // 6 * 6])
    among = learning_inputs(make_basis(twins, PENALTY), twins, PENALTY)[:, nearest]
    assert (among < 0.999).all()


def test_n_grams_are_read_by_what_has_not_seen_them(known: Known) -> None:
    changed = dataclasses.replace(known, targets=known.targets.copy())
    rows = known.clusters == known.clusters[0]
    changed.targets[rows] += 100.0
    before, after = by_ngrams(known, PENALTY), by_ngrams(changed, PENALTY)
    assert after[rows] == pytest.approx(before[rows], abs=1e-6)
    assert not np.allclose(after[~rows], before[~rows])


def test_joined_nets_say_what_their_shares_make_of_them(known: Known) -> None:
    inputs = known.embeddings.astype(np.float64)
    shapes = (Shape("all", 2, 8, 0), Shape("without the first half", 1, 4, WIDTH // 2))
    nets = [fit_nets(inputs, known.targets, shape) for shape in shapes]
    shares = np.array([[0.7, 0.2, 0.1], [0.5, 0.6, -0.3]])
    first, second = (outputs(net, inputs) for net in nets)
    expected = first * shares[:, 0] + second * shares[:, 1] + shares[:, 2]
    assert outputs(mixed(nets, shares), inputs) == pytest.approx(expected, abs=1e-9)
    blind = inputs.copy()
    blind[:, : WIDTH // 2] += 1.0
    assert outputs(nets[1], blind) == pytest.approx(second, abs=1e-9)


def test_nets_are_the_same_from_the_same_seeds(known: Known) -> None:
    inputs = known.embeddings.astype(np.float64)
    nets = [fit_nets(inputs, known.targets, Shape("all", 1, 8, 0)) for _ in range(2)]
    for field in dataclasses.fields(Net):
        assert np.array_equal(getattr(nets[0], field.name), getattr(nets[1], field.name))


def test_a_head_is_chosen_and_fitted(known: Known) -> None:
    tried: list[Tried] = []
    penalty = choose_penalty(known, tried.append)
    shares = choose_shares(known, penalty, tried.append)
    names = [one.name for one in tried]
    assert names[-3:] == ["nets", "nets without embedding", "all nets"]
    assert tried[-1].error(known.targets) <= min(one.error(known.targets) for one in tried[-3:-1])
    assert min(tried[-1].correlations(known.targets)) > 0.7
    parts = fit_head(known, penalty, shares)
    assert parts["queries"].dtype == np.int8
    assert parts["hidden"].shape == (columns_of(WIDTH, 2), 4 * 64 + 4 * 32)
    assert 0 < float(parts["domain"][0]) < 1


def test_the_benchmarks_predictors_foretell_what_they_have_not_seen(known: Known) -> None:
    chance = np.random.default_rng(8)
    order = chance.permutation(300)
    learnt, held = known.only(order[:240]), known.only(order[240:])
    blank = dataclasses.replace(held, targets=np.zeros_like(held.targets))
    asked = Asked(blank, held.numbers, learnt.numbers)
    told: list[str] = []
    found = dict(predictions(learnt, asked, told.append))
    assert list(found) == [
        *(TFIDF, LABELS, CROWDING, MINILM, WORD_TREES, ALL_RIDGE, ALL_TREES, BLEND),
    ]
    for name, values in found.items():
        assert values.shape == held.targets.shape, name
        for column, true in zip(values.T, held.targets.T, strict=True):
            if name not in (CROWDING, WORD_TREES):  # neither can tell one animal from another
                assert np.corrcoef(column, true)[0, 1] > 0.7, name
    blended = [found[name] for name in (TFIDF, ALL_RIDGE, ALL_TREES)]
    standard = [(one - one.mean(axis=0)) / one.std(axis=0) for one in blended]
    assert found[BLEND] == pytest.approx(np.mean(standard, axis=0))
    assert len(told) == 5
    cosines = np.sort(learnt.embeddings @ held.embeddings[0])[::-1]
    assert found[CROWDING][0] == pytest.approx([-cosines[15:50].mean()] * 2, abs=1e-5)
