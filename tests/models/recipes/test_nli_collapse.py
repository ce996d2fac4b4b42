"""The study of collapse: its probe set, the log-probability scorer, its metrics, the rules."""

import math
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
from support.paths import DATA, DOCS

pytest.importorskip("matplotlib", reason="the study draws its result")

import torch
from support.checkpoints import build_checkpoint
from transformers import LlamaConfig, LlamaForCausalLM

from assay_models import items
from assay_models.families.nli.claims import WEIGHTS
from recipes import measure
from recipes.code.studies.likelihood import Likelihood
from recipes.nli.data import LABELS
from recipes.nli.studies import collapse
from recipes.nli.studies.log_probability import (
    VERBALISERS,
    LogProbabilityScorer,
    build_prompt,
    by_best_word,
    by_first_word,
)
from recipes.nli.studies.probe_set import Group, digest_of, draw_groups, read_probe_set
from recipes.nli.studies.verdicts import (
    GATE,
    Verdicts,
    accuracy,
    entropy,
    estimates,
    fired_rules,
    flat_share,
    spread,
    top_share,
)

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the data folder is not here")
Row = dict[str, str]


def rows(sources: Sequence[str] = ("a", "b"), premises: int = 5, claims: int = 2) -> list[Row]:
    """Return premises with several claims of each label."""
    return [
        {"id": f"{source}{at}{label}{nth}", "source": source, "label": label}
        | {"premise": f"premise {at} of {source}", "hypothesis": f"claim {nth}, {label}"}
        for source in sources
        for at in range(premises)
        for label in LABELS
        for nth in range(claims)
    ]


class TestProbeSet:
    def test_it_is_balanced_and_independent_of_the_order_of_rows(self) -> None:
        groups = draw_groups(rows(), ("a", "b"), 3)
        assert [group.source for group in groups] == ["a"] * 3 + ["b"] * 3
        for group in groups:
            assert [claim.split(", ")[1] for claim in group.claims] == list(LABELS)
        again = draw_groups(rows()[::-1], ("a", "b"), 3)
        assert (again, digest_of(again)) == (groups, digest_of(groups))

    def test_other_pairs_have_another_digest(self) -> None:
        groups = draw_groups(rows(), ("a",), 3)
        assert digest_of(groups) != digest_of(groups[:-1])

    def test_premises_without_all_three_labels_are_left_out(self) -> None:
        short = [row for row in rows() if row["label"] != "neutral" or row["premise"] < "premise 3"]
        assert {group.evidence[:9] for group in draw_groups(short, ("a",), 3)} == {
            "premise 0",
            "premise 1",
            "premise 2",
        }
        with pytest.raises(ValueError, match="a has 3 premises"):
            draw_groups(short, ("a",), 4)

    @needs_data
    def test_it_is_the_probe_set_of_the_published_figures(self) -> None:
        groups = read_probe_set(DATA)
        page = DOCS / "explanation" / "nli-collapse.md"
        assert len(groups) == 200
        assert f"`{digest_of(groups)}`" in page.read_text()


def encode_letters(text: str) -> list[int]:
    return [ord(letter) % 60 for letter in text]


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "RESAMPLES", 50)


@pytest.fixture(scope="module")
def language_model() -> LlamaForCausalLM:
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.eval()
    return model


class TestLogProbabilityScorer:
    def test_the_mean_of_a_word_is_that_of_plain_transformers(
        self, language_model: LlamaForCausalLM
    ) -> None:
        own = deepcopy(language_model)  # scoring packs replaces its attention
        scorer = LogProbabilityScorer(
            Likelihood(own, encode_letters).token_likelihoods, encode_letters
        )
        (found,) = scorer.means([Group("own", "It rains.", ("It is wet.",), ("1",))])[0]
        prompt = encode_letters(build_prompt("It rains.", "It is wet."))
        for place, label in enumerate(LABELS):
            for nth, word in enumerate(VERBALISERS[label]):
                ids = torch.tensor([prompt + encode_letters(word)])
                with torch.inference_mode():
                    likely = language_model(ids).logits[0].log_softmax(-1)
                expected = likely[len(prompt) - 1 : -1].gather(1, ids[0, len(prompt) :, None])
                assert found[place, nth] == pytest.approx(float(expected.mean()), abs=1e-4)

    def test_probabilities_are_by_the_first_or_the_best_word(self) -> None:
        means = np.log(np.array([[0.2, 0.9, 0.1], [0.3, 0.1, 0.1], [0.5, 0.5, 0.5]]))
        assert by_first_word(means) == pytest.approx([0.2, 0.3, 0.5])
        assert by_best_word(means) == pytest.approx(np.array([0.9, 0.3, 0.5]) / 1.7)

    def test_the_gate_needs_a_gap_of_1_3_nats_over_two_tied_rivals(self) -> None:
        for gap, label in ((1.30, "neutral"), (1.32, "entailment")):
            means = np.array([[[[0.0], [-gap], [-gap]]]])
            found = Verdicts.from_probabilities(by_first_word(means), GATE).labels[0, 0]
            assert LABELS[found] == label


def constant_verdicts(labels: Sequence[int], sure: float, groups: int = 200) -> Verdicts:
    """Return groups that all have these labels, each with the same confidence."""
    likely = np.full((groups, 3, 3), (1 - sure) / 2)
    for claim, label in enumerate(labels):
        likely[:, claim, label] = sure
    return Verdicts.from_probabilities(likely)


class TestMetrics:
    def test_one_label_for_every_claim(self) -> None:
        found = constant_verdicts([2, 2, 2], 0.6)
        assert (top_share(found), entropy(found), flat_share(found)) == (1, 0, 1)
        assert accuracy(found) == pytest.approx(1 / 3)
        assert spread(found) == pytest.approx(0)

    def test_every_label_right(self) -> None:
        found = constant_verdicts([0, 1, 2], 0.6)
        assert (accuracy(found), flat_share(found)) == (1, 0)
        assert entropy(found) == pytest.approx(math.log2(3))
        phis = [WEIGHTS[label] * 0.6 for label in items.LABELS]
        assert spread(found) == pytest.approx(np.std(phis))

    def test_intervals_contain_their_value(self) -> None:
        generator = np.random.default_rng(5)
        found = Verdicts.from_probabilities(generator.dirichlet((3, 1, 1), size=(60, 3)))
        for name, estimate in estimates(found):
            assert estimate.low <= estimate.value <= estimate.high, name
            assert estimate.n == 60

    def test_the_rules_of_run_health_fire_on_a_collapsed_checker(self) -> None:
        names = [str(group) for group in range(200)]
        alive = constant_verdicts([0, 1, 2], 0.9)
        assert fired_rules(alive, names) == []
        fired = {
            fired.rule: fired.finding
            for fired in fired_rules(constant_verdicts([1, 1, 1], 0.4), names)
        }
        assert set(fired) == {"signal_collapse", "group_degeneracy"}
        assert fired["signal_collapse"].about == ("neutral",)
        assert fired["signal_collapse"].severity == "critical"


def test_the_command_prints_a_table_and_draws_a_plot(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    language_model: LlamaForCausalLM,
) -> None:
    folder = tmp_path / "cards" / "tiny" / "1"
    build_checkpoint("bert", folder, labels=LABELS, family="nli")
    scorer = LogProbabilityScorer(
        Likelihood(deepcopy(language_model), encode_letters).token_likelihoods, encode_letters
    )
    monkeypatch.setattr(collapse, "read_probe_set", lambda data: draw_groups(rows(), ("a", "b"), 3))
    monkeypatch.setattr(collapse, "embedded_root", lambda: tmp_path / "none")
    monkeypatch.setattr(collapse, "load_encoder", lambda: encode_letters)
    monkeypatch.setattr(LogProbabilityScorer, "of_backbone", lambda encode: scorer)
    plot = tmp_path / "labels.svg"
    arguments = ["--data", str(tmp_path), "--repository", str(folder), "--plot", str(plot)]
    monkeypatch.setattr("sys.argv", ["collapse", *arguments])
    collapse.main()
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(table) == 2 + 2 * 4
    assert len({line.count("|") for line in table}) == 1
    assert "<svg" in plot.read_text()
