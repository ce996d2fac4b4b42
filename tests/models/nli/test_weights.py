"""`nli` and `nli-small` with their real weights: the example, the labels, and batches."""

import random
from collections.abc import Sequence
from typing import Any

import pytest
from support.tiers import only_nightly

from assay_models.base import Input, Options, Raw, RewardModel, Score
from assay_models.items import NliItem
from assay_models.registry import Runtime, family_of
from assay_models.repository import ModelRepository, RepositoryEntry, embedded_root

pytestmark = pytest.mark.weights

TRIPLES = [
    (
        "All of the bridges over the canal were rebuilt after the flood of 1953.",
        "The bridges over the canal were rebuilt.",
        "The new bridges are more beautiful than the old ones.",
        "None of the bridges was rebuilt after the flood.",
    ),
    (
        "Every employee of the plant received a bonus in December.",
        "The employees of the plant got a bonus.",
        "The bonus was larger than last year's.",
        "No employee of the plant received a bonus.",
    ),
    (
        "An old man in a straw hat is feeding pigeons in the park.",
        "A man is feeding birds.",
        "The man comes to the park every day.",
        "The man is driving a bus.",
    ),
]
NEUTRAL_MAY_BE_LAST = [
    (
        "Two mechanics are repairing the engine of a red tractor in a barn.",
        "People are repairing a machine.",
        "The mechanics have worked on this tractor since breakfast.",
        "Nobody is working on the tractor.",
    ),
    (
        "A chef is slicing onions in a small kitchen.",
        "Someone is preparing food.",
        "The chef is making a soup for his family.",
        "The kitchen is empty.",
    ),
]


MODELS = ("nli@2", "nli-small@1")

LOW_LOG_ODDS = {
    ("nli@2", "Someone is preparing food."): 0.9,
    ("nli-small@1", "The bridges over the canal were rebuilt."): 0.4,
}
"""Entailed hypotheses with log-odds below 1, and their least log-odds."""

MISJUDGED = {("nli@2", "The chef is making a soup for his family."): "contradiction"}
"""Neutral hypotheses that a model classifies otherwise, and its label."""


@pytest.fixture(scope="module", params=MODELS)
def entry(request: pytest.FixtureRequest) -> RepositoryEntry:
    return ModelRepository([embedded_root()]).find(request.param)


@pytest.fixture(scope="module")
def model(entry: RepositoryEntry) -> RewardModel:
    files = ModelRepository([embedded_root()]).locate(entry)
    return family_of(entry.card).load(entry.card, files, Runtime())


def predict(model: RewardModel, inputs: Sequence[Input]) -> Sequence[Raw]:
    raws = model.predict(inputs)
    assert isinstance(raws, Sequence)
    return raws


def score(model: RewardModel, **fields: Any) -> Score:
    prepared = model.prepare([NliItem(**fields)], Options())
    return model.finish(prepared, predict(model, prepared.inputs), Options())[0]


def test_the_example_of_the_card_has_its_score(entry: RepositoryEntry, model: RewardModel) -> None:
    example = entry.card.example
    assert example is not None
    result = score(model, **example.item)
    assert result.score == pytest.approx(example.score, abs=example.tolerance)


@pytest.mark.parametrize(
    ("premise", "entailed", "neutral", "contradicted"), TRIPLES + NEUTRAL_MAY_BE_LAST
)
def test_pairs_get_their_labels_and_the_entailed_one_scores_highest(
    entry: RepositoryEntry,
    model: RewardModel,
    premise: str,
    entailed: str,
    neutral: str,
    contradicted: str,
) -> None:
    results = [
        score(model, premise=premise, hypothesis=h) for h in (entailed, neutral, contradicted)
    ]
    expected = MISJUDGED.get((entry.card.id, neutral), "neutral")
    assert [result.details["label"] for result in results] == [
        "entailment",
        expected,
        "contradiction",
    ]
    assert results[0].score > LOW_LOG_ODDS.get((entry.card.id, entailed), 1.0)
    assert max(results[1].score, results[2].score) < -1.0


@pytest.mark.parametrize(("premise", "entailed", "neutral", "contradicted"), TRIPLES)
def test_entailed_scores_above_neutral_above_contradicted(
    model: RewardModel, premise: str, entailed: str, neutral: str, contradicted: str
) -> None:
    results = [
        score(model, premise=premise, hypothesis=h) for h in (entailed, neutral, contradicted)
    ]
    assert results[0].score > results[1].score > results[2].score


def test_raws_are_the_same_alone_and_in_any_batch(model: RewardModel) -> None:
    pairs = [(premise, text) for premise, *texts in TRIPLES for text in texts]
    pairs.append((" ".join(premise for premise, *_ in TRIPLES), TRIPLES[0][1]))
    inputs = [
        model.prepare([NliItem(premise=p, hypothesis=h)], Options()).inputs[0] for p, h in pairs
    ]
    alone = [predict(model, [row])[0] for row in inputs]
    together = predict(model, inputs)
    backwards = predict(model, inputs[::-1])[::-1]
    for single, batched, reordered in zip(alone, together, backwards, strict=True):
        assert batched == pytest.approx(single, abs=1e-5, rel=0)
        assert reordered == pytest.approx(single, abs=1e-5, rel=0)


def test_phi_is_higher_for_the_response_that_the_evidence_supports(model: RewardModel) -> None:
    evidence = [premise for premise, *_ in TRIPLES]
    faithful = score(model, evidence=evidence, response=" ".join(t[1] for t in TRIPLES))
    false = score(model, evidence=evidence, response=" ".join(t[3] for t in TRIPLES))
    assert faithful.score > 0.3 > -0.3 > false.score
    assert faithful.channels["support"] > false.channels["support"]
    assert len(faithful.details["claims"]) == len(TRIPLES)


FERRY = (
    "The ferry to the island leaves at nine in the morning. It carries forty cars and two hundred "
    "passengers. The crossing takes two hours in calm weather. Tickets are sold at the office of "
    "the harbour. In winter the ferry stays in port."
)


@pytest.mark.parametrize("index", range(5))
def test_a_sentence_copied_from_a_passage_of_five_is_entailed(
    model: RewardModel, index: int
) -> None:
    copied = FERRY.split(". ")[index].removesuffix(".") + "."
    pair = score(model, premise=copied, hypothesis=copied)
    (claim,) = score(model, evidence=FERRY, response=copied).details["claims"]
    assert claim["label"] == "entailment"
    assert claim["confidence"] >= pair.channels["entailment"] - 1e-5


@pytest.mark.parametrize(
    "citation",
    [
        " [1]",
        " [1, 3]",
        " [doc_2]",
        " (Source: page 4)",
        " (Harbour Office, 2020)",
        " (https://a.b/c)",
    ],
)
def test_a_citation_changes_no_score(model: RewardModel, citation: str) -> None:
    plain = score(model, evidence=FERRY, response="The ferry carries forty cars.")
    cited = score(model, evidence=FERRY, response=f"The ferry carries forty cars{citation}.")
    assert (cited.score, cited.channels) == (plain.score, plain.channels)
    assert "citations_removed" in cited.flags


def test_a_value_of_its_own_row_is_entailed(model: RewardModel) -> None:
    table = "| Plan | Price |\n|---|---|\n| Basic | 9 euros |\n| Pro | 29 euros |"
    result = score(model, evidence=table, claims=["The price of Basic is 9 euros."])
    (claim,) = result.details["claims"]
    assert claim["label"] == "entailment"
    assert table[claim["chunk"]["start"] : claim["chunk"]["end"]] == "| Basic | 9 euros |"


def test_the_one_of_forty_passages_that_supports_a_claim_is_found(model: RewardModel) -> None:
    filler = (
        "The library of the town has a collection of old maps that nobody has read for years.",
        "Farmers in the valley grow apples, pears and plums on small plots of land.",
        "A painter repaired the fence of the school in the summer.",
    )
    passages = [f"{filler[number % 3]} This is note {number}." for number in range(39)]
    passages.append("The ferry to the island leaves at nine in the morning.")
    result = score(model, evidence=passages, claims=["The ferry leaves at nine in the morning."])
    (claim,) = result.details["claims"]
    assert (claim["label"], claim["passage"]) == ("entailment", 39)
    assert claim["best_supported"]["passage"] == 39
    assert claim["chunk"] == {"start": 0, "end": len(passages[39])}


PLACES = ("The museum", "The harbour", "A bakery", "The school", "An orchard", "The chapel")
EVENTS = ("was repaired", "was painted", "opened again", "got a new roof", "was measured")
TIMES = ("in spring", "after the storm", "on a Monday", "in 1962", "a year later")


@pytest.mark.parametrize(
    "words", [pytest.param(700, id="700"), pytest.param(6_000, id="6000", marks=only_nightly)]
)
def test_a_claim_that_is_contradicted_only_in_the_middle_of_a_long_text_is_found(
    entry: RepositoryEntry, model: RewardModel, words: int
) -> None:
    if entry.card.name != "nli":
        pytest.skip("nli-small takes this claim for neutral")
    chance, sentences = random.Random(4), list[str]()
    while sum(len(sentence.split()) for sentence in sentences) < words:
        parts = (chance.choice(choices) for choices in (PLACES, EVENTS, TIMES))
        sentences.append(" ".join(parts) + ".")
    fact = "The ferry to the island leaves at nine in the morning."
    sentences.insert(len(sentences) // 2, fact)
    evidence = " ".join(sentences)
    result = score(model, evidence=evidence, claims=["The ferry leaves at five in the afternoon."])
    (claim,) = result.details["claims"]
    assert claim["label"] == "contradiction"
    assert claim["chunk"]["start"] <= evidence.index(fact) < claim["chunk"]["end"]
    worst = claim["worst_contradicted"]
    assert {key: worst[key] for key in ("start", "end")} == claim["chunk"]


@pytest.mark.parametrize(("name", "mebibytes"), [("nli@2", 8), ("nli-small@1", 21)])
def test_the_trained_files_of_a_model_are_small_enough_for_the_repository(
    name: str, mebibytes: int
) -> None:
    folder = ModelRepository([embedded_root()]).find(name).folder
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= mebibytes * 2**20


def test_the_weights_of_all_models_are_small_enough_for_the_repository() -> None:
    files = [path for path in embedded_root().rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 48 * 2**20
