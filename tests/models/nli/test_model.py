"""The NLI family on tiny random checkpoints: labels by name, claims, evidence and item errors."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from support.checkpoints import build_checkpoint, load_model
from support.marked_checker import prose

from assay_models.base import ItemError, Options, Prepared, Raw, RewardModel, Score
from assay_models.card import CardError
from assay_models.families.nli.claims import WEIGHTS
from assay_models.items import Label, NliItem

NAMES = ("entailment", "neutral", "contradiction")
CONFIDENT: dict[Label, Raw] = {
    "entailment": (3.0, 0.5, 0.0),
    "neutral": (0.0, 3.0, 0.5),
    "contradiction": (0.5, 0.0, 3.0),
}
FERRY = "The ferry to the island leaves at nine in the morning."
HARBOUR = "The harbour is closed to all ships in winter."


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> RewardModel:
    return load_model(build(tmp_path_factory.mktemp("nli")))


def build(folder: Path, own: Sequence[str] = NAMES, /, **options: object) -> Path:
    # Random weights classify obvious pairs at random.
    options = {"probes": False, **options}
    return build_checkpoint("bert", folder, labels=own, family="nli", options=options)


def prepare(model: RewardModel, truncation: Any = "error", **fields: Any) -> Prepared:
    return model.prepare([NliItem(**fields)], Options(truncation=truncation))


def score(model: RewardModel, **fields: Any) -> Score:
    prepared = prepare(model, **fields)
    raws = model.predict(prepared.inputs)
    assert isinstance(raws, Sequence)
    return model.finish(prepared, raws, Options())[0]


def finish(model: RewardModel, prepared: Prepared, labels: Sequence[Label]) -> Score:
    """Compute the score as if the model were confident of these labels, one for each input."""
    return model.finish(prepared, [CONFIDENT[label] for label in labels], Options())[0]


def permuted(source: Path, target: Path, order: Sequence[int], labels: Sequence[str]) -> Path:
    """Build a checkpoint that computes the same with its logits in another order."""
    build(target, labels)
    weights = load_file(source / "weights" / "model.safetensors")
    for name in ("classifier.weight", "classifier.bias"):
        weights[name] = weights[name][list(order)].contiguous()
    save_file(weights, target / "weights" / "model.safetensors", {"format": "pt"})
    return target


@pytest.mark.parametrize(
    ("order", "labels"),
    [
        ((2, 1, 0), ("contradiction", "neutral", "entailment")),
        ((1, 0, 2), ("NEUTRAL", "ENTAILMENT", "CONTRADICTION")),
        ((2, 0, 1), ("contradict", "entail", "neutral")),
    ],
)
def test_labels_are_found_by_name_in_any_order(
    tmp_path: Path, order: Sequence[int], labels: Sequence[str]
) -> None:
    first = build(tmp_path / "first")
    other = load_model(permuted(first, tmp_path / "other", order, labels))
    plain = load_model(first)
    pair = {"premise": FERRY, "hypothesis": "The ferry leaves in the evening."}
    expected, result = score(plain, **pair), score(other, **pair)
    assert max(expected.channels.values()) - min(expected.channels.values()) > 0.05
    assert result.channels == pytest.approx(expected.channels, abs=1e-6)
    assert result.score == pytest.approx(expected.score, abs=1e-5)
    assert result.details["label"] == expected.details["label"]


@pytest.mark.parametrize(
    "labels",
    [
        ("LABEL_0", "LABEL_1", "LABEL_2"),
        ("entailment", "neutral"),
        ("entail", "entailment", "neutral"),
    ],
)
def test_unknown_or_incomplete_labels_are_a_card_error(
    tmp_path: Path, labels: Sequence[str]
) -> None:
    with pytest.raises(CardError, match=r"options\.labels"):
        load_model(build(tmp_path, labels))


def test_the_card_can_name_the_labels_of_a_checkpoint_without_names(tmp_path: Path) -> None:
    folder = build(tmp_path, ("LABEL_0", "LABEL_1", "LABEL_2"), labels=list(NAMES))
    assert set(score(load_model(folder), premise=FERRY, hypothesis=HARBOUR).channels) == set(NAMES)


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"max_pairs": 0}, {"temprature": 1.0}])
def test_invalid_options_are_a_card_error(tmp_path: Path, options: dict[str, object]) -> None:
    with pytest.raises(CardError, match="options"):
        load_model(build(tmp_path, **options))


def test_a_pair_scores_the_log_odds_of_entailment(tiny: RewardModel) -> None:
    prepared = prepare(tiny, premise=FERRY, hypothesis=HARBOUR)
    result = finish(tiny, prepared, ["entailment"])
    # ln(e^3 / (e^0.5 + e^0))
    assert result.raw == result.score == pytest.approx(3 - 0.974077, abs=1e-6)
    assert result.details["label"] == "entailment"
    assert result.details["probabilities"] == result.channels
    assert sum(result.channels.values()) == pytest.approx(1)


def test_the_temperature_changes_the_score_and_not_the_raw(
    tmp_path: Path, tiny: RewardModel
) -> None:
    warm = load_model(build(tmp_path, temperature=2.0))
    prepared = prepare(warm, premise=FERRY, hypothesis=HARBOUR)
    plain, result = (finish(model, prepared, ["entailment"]) for model in (tiny, warm))
    assert result.raw == plain.raw
    # ln(e^1.5 / (e^0.25 + e^0))
    assert result.score == pytest.approx(1.5 - 0.825939, abs=1e-6)
    assert result.channels["entailment"] < plain.channels["entailment"]
    (raw,) = warm.finish(prepared, [CONFIDENT["entailment"]], Options(raw=True))
    assert raw.score == raw.raw


def test_every_claim_is_paired_with_every_passage(tiny: RewardModel) -> None:
    prepared = prepare(tiny, evidence=(FERRY, HARBOUR, FERRY), claims=("It leaves.", "It stays."))
    assert len(prepared.inputs) == 6
    keys = [row.key for row in prepared.inputs]
    assert keys[0] == keys[2] == prepare(tiny, premise=FERRY, hypothesis="It leaves.").inputs[0].key
    assert len(set(keys)) == 4


def test_a_claim_has_the_label_of_its_pair(tiny: RewardModel) -> None:
    pair = score(tiny, premise=FERRY, hypothesis="The ferry stays in port.")
    whole = score(tiny, evidence=FERRY, claims=("The ferry stays in port.",))
    (claim,) = whole.details["claims"]
    assert claim["probabilities"] == pytest.approx(pair.channels, abs=1e-6)
    assert claim["label"] == pair.details["label"]
    assert whole.raw == pytest.approx(WEIGHTS[claim["label"]] * claim["confidence"], abs=1e-9)


@pytest.mark.parametrize("new", NAMES)
def test_changing_a_label_changes_the_score_by_the_formula(tiny: RewardModel, new: Label) -> None:
    prepared = prepare(tiny, evidence=FERRY, claims=("one", "two", "three"))
    before = finish(tiny, prepared, ["entailment", "neutral", "entailment"])
    after = finish(tiny, prepared, ["entailment", "neutral", new])
    confidence = before.details["claims"][0]["confidence"]
    assert after.score - before.score == pytest.approx((WEIGHTS[new] - 1) * confidence / 3)


def test_phi_is_clipped_at_minus_one_and_the_raw_is_not(tiny: RewardModel) -> None:
    prepared = prepare(tiny, evidence=FERRY, claims=("one", "two"))
    result = finish(tiny, prepared, ["contradiction", "contradiction"])
    assert result.raw is not None
    assert result.raw < -1.2
    assert result.score == result.channels["phi"] == -1.0
    assert result.channels["contradiction"] == 1.0
    (raw,) = tiny.finish(prepared, [CONFIDENT["contradiction"]] * 2, Options(raw=True))
    assert raw.score == raw.raw == result.raw


@pytest.mark.parametrize(
    ("labels", "verdict", "passage"),
    [
        (("neutral", "entailment"), "entailment", 3),
        (("entailment", "contradiction"), "entailment", 1),
        (("contradiction", "entailment"), "entailment", 3),
        (("contradiction", "neutral"), "contradiction", 1),
        (("neutral", "neutral"), "neutral", 3),
    ],
)
def test_support_decides_before_contradiction_and_that_before_neutral(
    tiny: RewardModel, labels: Sequence[Label], verdict: Label, passage: int
) -> None:
    prepared = prepare(tiny, evidence=("", FERRY, " \n", HARBOUR), claims=("The ferry is late.",))
    raws = [CONFIDENT[label] for label in labels]
    if labels == ("neutral", "neutral"):
        raws = [(0.0, 3.0, 0.5), (0.0, 2.0, 0.5)]
    (result,) = tiny.finish(prepared, raws, Options())
    (claim,) = result.details["claims"]
    assert (claim["label"], claim["passage"]) == (verdict, passage)
    assert claim["confidence"] == claim["probabilities"][verdict]
    assert result.details["empty_passages"] == 2


def test_the_report_names_the_best_and_worst_passages_with_probabilities(tiny: RewardModel) -> None:
    prepared = prepare(tiny, evidence=(FERRY, HARBOUR), claims=("The ferry is late.",))
    result = finish(tiny, prepared, ["contradiction", "entailment"])
    (claim,) = result.details["claims"]
    assert claim["best_supported"]["passage"] == 1
    assert claim["worst_contradicted"]["passage"] == 0
    assert claim["best_supported"]["entailment"] > 0.8
    assert claim["worst_contradicted"]["contradiction"] > 0.8


def test_a_response_is_split_into_claims_with_their_places(tiny: RewardModel) -> None:
    response = "Yes. The ferry leaves at nine. Nobody may board it after that!"
    prepared = prepare(tiny, evidence=FERRY, response=response)
    result = finish(tiny, prepared, ["entailment", "neutral"])
    places = [response[claim["start"] : claim["end"]] for claim in result.details["claims"]]
    assert places == ["The ferry leaves at nine.", "Nobody may board it after that!"]
    assert result.details["dropped_claims"] == 1
    assert result.channels["support"] == result.channels["neutral"] == 0.5


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"evidence": FERRY, "response": "Yes. No. Maybe."}, "no_claims"),
        ({"evidence": FERRY, "response": ""}, "no_claims"),
        ({"evidence": FERRY, "response": "................."}, "no_claims"),
        ({"evidence": FERRY, "claims": ()}, "no_claims"),
        ({"evidence": FERRY, "claims": ("  ",)}, "no_claims"),
        ({"premise": FERRY, "hypothesis": "\u200b"}, "no_claims"),
        ({"premise": "\n", "hypothesis": FERRY}, "no_evidence"),
        ({"evidence": "", "claims": (FERRY,)}, "no_evidence"),
        ({"evidence": (), "response": FERRY}, "no_evidence"),
        ({"evidence": ("", "--"), "response": FERRY}, "no_evidence"),
        ({}, "invalid_item"),
        ({"premise": FERRY}, "invalid_item"),
        ({"evidence": FERRY}, "invalid_item"),
        ({"premise": FERRY, "claims": (FERRY,)}, "invalid_item"),
        ({"evidence": FERRY, "claims": (FERRY,), "response": FERRY}, "invalid_item"),
        ({"evidence": FERRY, "premise": FERRY, "hypothesis": FERRY}, "invalid_item"),
    ],
)
def test_an_item_that_cannot_be_scored_is_an_item_error_and_never_neutral(
    tiny: RewardModel, fields: dict[str, Any], code: str
) -> None:
    with pytest.raises(ItemError) as error:
        prepare(tiny, **fields)
    assert error.value.code == code
    assert "ferry" not in error.value.detail.lower()


def test_too_many_pairs_are_refused_before_any_is_encoded(tmp_path: Path) -> None:
    model = load_model(build(tmp_path, max_pairs=3))
    assert len(prepare(model, evidence=(FERRY,) * 3, claims=("one",)).inputs) == 3
    with pytest.raises(ItemError, match="3 pairs") as error:
        prepare(model, evidence=(FERRY,) * 2, claims=("one", "two"))
    assert error.value.code == "too_many_pairs"


def test_a_truncated_pair_is_flagged_and_counted(tiny: RewardModel) -> None:
    prepared = prepare(tiny, "right", premise=prose(40), hypothesis="The ferry is late.")
    result = finish(tiny, prepared, ["entailment"])
    assert result.flags == ("truncated",)
    assert result.details["truncated_tokens"] > 100
    assert max(row.tokens for row in prepared.inputs) == 256


def test_too_many_chunks_are_refused_before_any_is_encoded(tmp_path: Path) -> None:
    model = load_model(build(tmp_path, max_pairs=20))
    with pytest.raises(ItemError, match="20 pairs") as error:
        prepare(model, evidence=prose(200), claims=("The ferry is late.",))
    assert error.value.code == "too_many_pairs"


def test_details_can_be_written_as_json(tiny: RewardModel) -> None:
    result = score(tiny, evidence=(FERRY, HARBOUR), claims=("The ferry is late.",))
    assert json.loads(json.dumps(result.details)) == result.details
