"""The parts of the recipe on made-up queries: inputs of a head, nets and their blend."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from assay_models.families.qpp.features import FEATURES
from assay_models.families.qpp.heads import Net, input_width, neighbour_features
from recipes.video_qpp.fit import Candidate, choose_blend, choose_penalty, fit_head
from recipes.video_qpp.head_inputs import (
    LabelledQueries,
    fit_basis,
    ngram_predictions,
    read_text_features,
    training_inputs,
)
from recipes.video_qpp.nets import NetShape, blend_nets, fit_nets, net_outputs
from recipes.video_qpp.studies.predictors import (
    ALL_RIDGE,
    ALL_TREES,
    BLEND,
    CROWDING,
    LABELS,
    MINILM,
    TFIDF,
    WORD_TREES,
    PredictionInputs,
    predictions,
)

WIDTH = 160
PENALTY = 2.0
ANIMALS = ("fox", "hen", "cow", "owl", "cat", "dog", "bee", "ant", "ape", "yak")


@pytest.fixture(scope="module")
def known() -> LabelledQueries:
    """Captions of ten animals, each of which is easy or hard in every caption."""
    chance = np.random.default_rng(3)
    animals = chance.integers(len(ANIMALS), size=300)
    texts = [f"a {ANIMALS[animal]} number {number % 7}" for number, animal in enumerate(animals)]
    centres = chance.normal(size=(len(ANIMALS), WIDTH))
    embeddings = centres[animals] + chance.normal(scale=0.3, size=(300, WIDTH))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    ease = chance.normal(size=(len(ANIMALS), 2))
    word_features, counts = read_text_features(texts)
    clusters = np.arange(300) // 6
    return LabelledQueries(
        embeddings=embeddings.astype(np.float32),
        word_features=word_features,
        counts=counts,
        targets=ease[animals],
        clusters=clusters,
    )


def test_surroundings_equal_their_formulas() -> None:
    chance = np.random.default_rng(1)
    cosines = chance.uniform(-0.2, 1.0, size=(2, 60))
    labels = chance.normal(size=(60, 1))
    found = neighbour_features(torch.from_numpy(cosines), torch.from_numpy(labels)).numpy()
    for row, given in zip(found, cosines, strict=True):
        ranked = sorted(given, reverse=True)
        bands = [ranked[0], *(np.mean(ranked[a:b]) for a, b in ((1, 4), (4, 16), (16, 50)))]
        around: list[float] = []
        for sharpness, doubt in ((8, 0.0), (16, 0.0), (32, 60e-5)):
            kernel = [math.exp(sharpness * (cosine - 1)) for cosine in given]
            weighted = sum(weight * label for weight, (label,) in zip(kernel, labels, strict=True))
            around += [math.log(sum(kernel) / 60), weighted / (sum(kernel) + doubt)]
        assert row == pytest.approx([*bands, *around], abs=1e-9)


def test_training_inputs_exclude_the_query_itself_and_its_cluster(
    known: LabelledQueries,
) -> None:
    basis = fit_basis(known, PENALTY)
    nearest = WIDTH + len(FEATURES)
    apart = training_inputs(basis, known, PENALTY)[:, nearest]
    itself = basis.inputs(known)[:, nearest]
    assert itself == pytest.approx(np.ones(300), abs=1e-3)
    assert (apart < itself - 0.01).all()
    twins = dataclasses.replace(known, embeddings=known.embeddings[np.arange(300) // 6 * 6])
    among = training_inputs(fit_basis(twins, PENALTY), twins, PENALTY)[:, nearest]
    assert (among < 0.999).all()


def test_ngram_predictions_are_out_of_fold(known: LabelledQueries) -> None:
    changed = dataclasses.replace(known, targets=known.targets.copy())
    rows = known.clusters == known.clusters[0]
    changed.targets[rows] += 100.0
    before, after = ngram_predictions(known, PENALTY), ngram_predictions(changed, PENALTY)
    assert after[rows] == pytest.approx(before[rows], abs=1e-6)
    assert not np.allclose(after[~rows], before[~rows])


def test_blended_nets_output_the_weighted_sum(known: LabelledQueries) -> None:
    inputs = known.embeddings.astype(np.float64)
    shapes = (NetShape("all", 2, 8, 0), NetShape("without the first half", 1, 4, WIDTH // 2))
    nets = [fit_nets(inputs, known.targets, shape) for shape in shapes]
    weights = np.array([[0.7, 0.2, 0.1], [0.5, 0.6, -0.3]])
    first, second = (net_outputs(net, inputs) for net in nets)
    expected = first * weights[:, 0] + second * weights[:, 1] + weights[:, 2]
    assert net_outputs(blend_nets(nets, weights), inputs) == pytest.approx(expected, abs=1e-9)
    blind = inputs.copy()
    blind[:, : WIDTH // 2] += 1.0
    assert net_outputs(nets[1], blind) == pytest.approx(second, abs=1e-9)


def test_the_same_seeds_give_the_same_nets(known: LabelledQueries) -> None:
    inputs = known.embeddings.astype(np.float64)
    nets = [fit_nets(inputs, known.targets, NetShape("all", 1, 8, 0)) for _ in range(2)]
    for field in dataclasses.fields(Net):
        assert np.array_equal(getattr(nets[0], field.name), getattr(nets[1], field.name))


def test_a_head_is_fitted_with_cross_validated_settings(known: LabelledQueries) -> None:
    candidates: list[Candidate] = []
    penalty = choose_penalty(known, candidates.append)
    weights = choose_blend(known, penalty, candidates.append)
    names = [candidate.name for candidate in candidates]
    assert names[-3:] == ["nets", "nets without embedding", "all nets"]
    errors = [candidate.error(known.targets) for candidate in candidates[-3:]]
    assert errors[-1] <= min(errors[:-1])
    assert min(candidates[-1].correlations(known.targets)) > 0.7
    parts = fit_head(known, penalty, weights)
    assert parts["queries"].dtype == np.int8
    assert parts["hidden"].shape == (input_width(WIDTH, 2), 4 * 64 + 4 * 32)
    assert 0 < float(parts["domain"][0]) < 1


def test_the_benchmark_predictors_correlate_on_unseen_queries(known: LabelledQueries) -> None:
    chance = np.random.default_rng(8)
    order = chance.permutation(300)
    train, held_out = known.of_rows(order[:240]), known.of_rows(order[240:])
    blank = dataclasses.replace(held_out, targets=np.zeros_like(held_out.targets))
    inputs = PredictionInputs(blank, held_out.word_features, train.word_features)
    log: list[str] = []
    found = dict(predictions(train, inputs, log.append))
    assert list(found) == [
        *(TFIDF, LABELS, CROWDING, MINILM, WORD_TREES, ALL_RIDGE, ALL_TREES, BLEND),
    ]
    for name, values in found.items():
        assert values.shape == held_out.targets.shape, name
        for column, true in zip(values.T, held_out.targets.T, strict=True):
            if name not in (CROWDING, WORD_TREES):  # neither distinguishes the animals
                assert np.corrcoef(column, true)[0, 1] > 0.7, name
    blended = [found[name] for name in (TFIDF, ALL_RIDGE, ALL_TREES)]
    standard = [(values - values.mean(axis=0)) / values.std(axis=0) for values in blended]
    assert found[BLEND] == pytest.approx(np.mean(standard, axis=0))
    assert len(log) == 5
    cosines = np.sort(train.embeddings @ held_out.embeddings[0])[::-1]
    assert found[CROWDING][0] == pytest.approx([-cosines[15:50].mean()] * 2, abs=1e-5)
