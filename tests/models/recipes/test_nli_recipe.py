"""The recipe of `nli`: its metrics on hand-made cases, its data, its batches."""

import random
from collections import Counter

import numpy as np
import pytest
from support.paths import DATA

pytest.importorskip("sklearn", reason="the recipes need scikit-learn")

from sklearn.metrics import f1_score

from recipes.nli.baselines import fit_baselines
from recipes.nli.calibration import (
    expected_calibration_error,
    fit_temperature,
    scale_by_temperature,
)
from recipes.nli.data import (
    LABELS,
    OPEN_TIERS,
    TRAINED_SOURCES,
    Pair,
    batches_by_length,
    read_pairs,
)
from recipes.nli.metrics import Predictions, binary_accuracy, label_row, macro_f1, order_row
from recipes.nli.recombination import (
    RecombinationConfig,
    distracted_pairs,
    labelled_pairs,
    mixed_pairs,
    sibling_pairs,
    swapped_pairs,
    unrelated_pairs,
)

NLI_DATA = DATA / "nli"
needs_data = pytest.mark.skipif(not NLI_DATA.is_dir(), reason="the data folder is not here")


def test_batches_contain_every_row_once_and_near_equal_lengths() -> None:
    generator = np.random.default_rng(3)
    lengths = [int(length) for length in generator.integers(5, 120, size=1_003)]
    batches = list(batches_by_length(lengths, 16, random.Random(1)))
    assert sorted(row for batch in batches for row in batch) == list(range(1_003))
    padded = sum(len(batch) * max(lengths[row] for row in batch) for batch in batches)
    assert padded < 1.1 * sum(lengths)


def test_macro_f1_equals_that_of_scikit_learn() -> None:
    generator = np.random.default_rng(5)
    true, predicted = generator.integers(0, 3, size=(2, 200))
    assert macro_f1(predicted, true) == pytest.approx(f1_score(true, predicted, average="macro"))


def test_binary_accuracy_does_not_distinguish_neutral_and_contradicted() -> None:
    true, predicted = np.array([0, 0, 1, 2]), np.array([0, 1, 2, 0])
    assert binary_accuracy(predicted, true) == 0.5


def test_the_calibration_error_of_a_hand_made_case() -> None:
    stated = np.array([[0.9, 0.1, 0.0]] * 10)
    labels = np.array([0] * 6 + [1] * 4)
    assert expected_calibration_error(stated, labels) == pytest.approx(0.3)


def test_fitting_finds_the_temperature_of_overconfident_logits() -> None:
    generator = np.random.default_rng(7)
    logits = generator.normal(size=(20_000, 3)) * 2
    stated = scale_by_temperature(logits, 1.0)
    labels = (stated.cumsum(axis=1) < generator.random((20_000, 1))).sum(axis=1)
    assert fit_temperature(logits * 1.8, labels) == pytest.approx(1.8, rel=0.03)


def test_order_row_compares_hypotheses_of_one_premise_only() -> None:
    pairs = [
        Pair("p", "a", label="entailment", source="own", tier="A"),
        Pair("p", "b", label="neutral", source="own", tier="A"),
        Pair("q", "c", label="entailment", source="own", tier="A"),
        Pair("q", "d", label="neutral", source="own", tier="A"),
        Pair("r", "e", label="neutral", source="own", tier="A"),
    ]
    stated = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.3, 0.6, 0.1], [0.5, 0.4, 0.1]])
    predictions = Predictions(tuple(pairs), np.vstack([stated, stated[0]]), {})
    row = order_row(predictions, "own", "neutral")
    assert (row.value, row.n) == (0.5, 2)


def test_baselines_learn_from_the_hypothesis_and_from_shared_words() -> None:
    pairs = [
        *(
            Pair(f"The {n} sees a dog.", f"The {n} sees it.", label=LABELS[0], source="o", tier="A")
            for n in NOUNS
        ),
        *(
            Pair(
                f"The {n} sees a dog.", "Perhaps it rained.", label=LABELS[1], source="o", tier="A"
            )
            for n in NOUNS
        ),
        *(
            Pair(f"The {n} sees a dog.", f"No {n} sees it.", label=LABELS[2], source="o", tier="A")
            for n in NOUNS[:3]
        ),
    ]
    predictions = Predictions(
        tuple(pairs),
        np.tile([0.2, 0.5, 0.3], (len(pairs), 1)),
        {name: baseline(pairs) for name, baseline in fit_baselines(pairs).items()},
    )
    row = label_row(predictions, "own", metric="macro F1", statistic=macro_f1)
    values = {baseline.name: baseline.value for baseline in row.baselines}
    assert values["hypothesis only"] > 0.9
    assert values["word overlap"] > 0.9
    assert values["majority class"] < 0.3


NOUNS = ("farmer", "pilot", "nurse", "miner", "sailor")


@pytest.mark.data
@needs_data
def test_training_pairs_are_open_and_share_no_premise_with_dev() -> None:
    train = read_pairs(NLI_DATA / "train.jsonl.gz", OPEN_TIERS)
    assert len(train) == 38_131
    assert {pair.tier for pair in train} == OPEN_TIERS
    assert {pair.source for pair in train} == TRAINED_SOURCES
    dev = {pair.premise for pair in read_pairs(NLI_DATA / "dev.jsonl.gz")}
    assert not dev & {pair.premise for pair in train}


FAMILIES = [
    Pair(premise, f"{premise} {label}", label=label, source=source, tier="A")
    for source in ("mnli", "snli", "cad", "fool_me_twice", "help", "folio")
    for premise in ("A lamp burns.", "A dog runs.", "Rain falls.")
    for label in LABELS
]


def test_unrelated_pairs_are_neutral_and_of_one_source() -> None:
    made = unrelated_pairs(FAMILIES, len(FAMILIES), random.Random(3))
    assert len(made) > len(FAMILIES) / 3
    own = {(pair.source, pair.premise, pair.hypothesis) for pair in FAMILIES}
    for pair in made:
        assert pair.label == "neutral"
        assert not pair.hypothesis.startswith(pair.premise)
        assert (pair.source, pair.premise, pair.hypothesis) not in own


def test_a_distracted_premise_contains_the_own_one_and_keeps_the_label() -> None:
    made = distracted_pairs(FAMILIES, 20, random.Random(3))
    assert len(made) == 20
    for pair in made:
        own = next(given for given in FAMILIES if given.hypothesis == pair.hypothesis)
        assert pair.label == own.label
        assert pair.premise.startswith(own.premise) or pair.premise.endswith(own.premise)
        assert len(pair.premise) > len(own.premise)


def test_siblings_are_two_hypotheses_of_one_premise_each_couple_once() -> None:
    made = sibling_pairs(FAMILIES, 10_000, random.Random(3))
    assert len({(pair.source, pair.premise, pair.hypothesis) for pair in made}) == len(made)
    assert len(made) == len(FAMILIES) // 3 * 6
    for pair in made:
        assert pair.premise.rsplit(" ", 1)[0] == pair.hypothesis.rsplit(" ", 1)[0]
        assert pair.premise != pair.hypothesis


def test_swapped_pairs_are_given_pairs_with_premise_and_hypothesis_swapped() -> None:
    own = {(pair.hypothesis, pair.premise) for pair in FAMILIES}
    made = swapped_pairs(FAMILIES, 7, random.Random(3))
    assert len(made) == 7
    assert {(pair.premise, pair.hypothesis) for pair in made} <= own


def test_a_mixture_takes_whole_rounds_of_a_source_and_a_part_of_one() -> None:
    mix = {"mnli": 20, "help": 4}
    made = mixed_pairs(FAMILIES, mix, unrelated=0, distracted=0)
    counts = Counter(made)
    mnli = [counts[pair] for pair in FAMILIES if pair.source == "mnli"]
    assert sorted(mnli) == [2] * 7 + [3] * 2
    assert sorted(counts[pair] for pair in FAMILIES if pair.source == "help") == [0] * 5 + [1] * 4
    assert len(made) == 24


def test_the_drawn_pairs_depend_on_the_seed_alone() -> None:
    mix = {"mnli": 5}
    assert mixed_pairs(FAMILIES, mix, seed=4) == mixed_pairs(FAMILIES, mix, seed=4)
    assert mixed_pairs(FAMILIES, mix, seed=4) != mixed_pairs(FAMILIES, mix, seed=5)
    made, other = (RecombinationConfig(unrelated=9, distracted=9, seed=seed) for seed in (4, 5))
    assert labelled_pairs(FAMILIES, made) == labelled_pairs(FAMILIES, made)
    assert labelled_pairs(FAMILIES, made) != labelled_pairs(FAMILIES, other)
