"""The bench of collapse: its bank, the log-probability scorer, its figures, and the real rules."""

import math
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
from support.paths import DATA, DOCS

pytest.importorskip("matplotlib", reason="the bench draws what it measured")

import torch
from support.checkpoints import build_checkpoint
from transformers import LlamaConfig, LlamaForCausalLM

from assay_models.families.nli.claims import WEIGHTS
from recipes import measure
from recipes.code.likelihood import Likelihood
from recipes.nli import collapse
from recipes.nli.bank import Group, digest_of, draw, read_bank
from recipes.nli.data import LABELS
from recipes.nli.logprob import VERBALISERS, LogProbability, best_of_three, fast, prompt_of
from recipes.nli.verdicts import (
    GATE,
    Verdicts,
    accuracy,
    diagnosis,
    entropy,
    figures,
    flat_groups,
    spread,
    top_share,
)

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the data folder is not here")
Row = dict[str, str]


def rows(sources: Sequence[str] = ("a", "b"), premises: int = 5, claims: int = 2) -> list[Row]:
    """Premises with several claims of each label."""
    return [
        {"id": f"{source}{at}{label}{nth}", "source": source, "label": label}
        | {"premise": f"premise {at} of {source}", "hypothesis": f"claim {nth}, {label}"}
        for source in sources
        for at in range(premises)
        for label in LABELS
        for nth in range(claims)
    ]


class TestBank:
    def test_it_is_balanced_and_the_same_in_whatever_order_the_rows_come(self) -> None:
        bank = draw(rows(), ("a", "b"), 3)
        assert [group.source for group in bank] == ["a"] * 3 + ["b"] * 3
        for group in bank:
            assert [claim.split(", ")[1] for claim in group.claims] == list(LABELS)
        again = draw(rows()[::-1], ("a", "b"), 3)
        assert (again, digest_of(again)) == (bank, digest_of(bank))

    def test_other_pairs_have_another_digest(self) -> None:
        bank = draw(rows(), ("a",), 3)
        assert digest_of(bank) != digest_of(bank[:-1])

    def test_premises_without_all_three_labels_are_left_out(self) -> None:
        short = [row for row in rows() if row["label"] != "neutral" or row["premise"] < "premise 3"]
        assert {group.evidence[:9] for group in draw(short, ("a",), 3)} == {
            "premise 0",
            "premise 1",
            "premise 2",
        }
        with pytest.raises(ValueError, match="a has 3 premises"):
            draw(short, ("a",), 4)

    @needs_data
    def test_the_bank_of_the_published_figures(self) -> None:
        bank = read_bank(DATA)
        page = DOCS / "explanation" / "nli-collapse.md"
        assert len(bank) == 200
        assert f"`{digest_of(bank)}`" in page.read_text()


def letters(text: str) -> list[int]:
    return [ord(one) % 60 for one in text]


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
    return LlamaForCausalLM(config).eval()


class TestLogProbability:
    def test_a_word_is_worth_what_plain_transformers_says(
        self, language_model: LlamaForCausalLM
    ) -> None:
        own = deepcopy(language_model)  # what scores packs attends in a way of its own
        scorer = LogProbability(Likelihood(own, letters).tokens, letters)
        (found,) = scorer.means([Group("own", "It rains.", ("It is wet.",), ("1",))])[0]
        asked = letters(prompt_of("It rains.", "It is wet."))
        for place, label in enumerate(LABELS):
            for nth, word in enumerate(VERBALISERS[label]):
                ids = torch.tensor([asked + letters(word)])
                with torch.inference_mode():
                    likely = language_model(ids).logits[0].log_softmax(-1)
                told = likely[len(asked) - 1 : -1].gather(1, ids[0, len(asked) :, None])
                assert found[place, nth] == pytest.approx(float(told.mean()), abs=1e-4)

    def test_one_word_or_the_best_of_three(self) -> None:
        means = np.log(np.array([[0.2, 0.9, 0.1], [0.3, 0.1, 0.1], [0.5, 0.5, 0.5]]))
        assert fast(means) == pytest.approx([0.2, 0.3, 0.5])
        assert best_of_three(means) == pytest.approx(np.array([0.9, 0.3, 0.5]) / 1.7)

    def test_the_gate_needs_a_gap_of_1_3_nats_over_two_tied_rivals(self) -> None:
        for gap, label in ((1.30, "neutral"), (1.32, "entailment")):
            means = np.array([[[[0.0], [-gap], [-gap]]]])
            found = Verdicts.of(fast(means), GATE).labels[0, 0]
            assert LABELS[found] == label


def stream(labels: Sequence[int], sure: float, groups: int = 200) -> Verdicts:
    """Groups that all have these labels, each as sure."""
    likely = np.full((groups, 3, 3), (1 - sure) / 2)
    for claim, label in enumerate(labels):
        likely[:, claim, label] = sure
    return Verdicts.of(likely)


class TestFigures:
    def test_one_label_for_everything(self) -> None:
        found = stream([2, 2, 2], 0.6)
        assert (top_share(found), entropy(found), flat_groups(found)) == (1, 0, 1)
        assert accuracy(found) == pytest.approx(1 / 3)
        assert spread(found) == pytest.approx(0)

    def test_every_label_right(self) -> None:
        found = stream([0, 1, 2], 0.6)
        assert (accuracy(found), flat_groups(found)) == (1, 0)
        assert entropy(found) == pytest.approx(math.log2(3))
        phis = [WEIGHTS[label] * 0.6 for label in LABELS]
        assert spread(found) == pytest.approx(np.std(phis))

    def test_intervals_hold_their_value(self) -> None:
        generator = np.random.default_rng(5)
        found = Verdicts.of(generator.dirichlet((3, 1, 1), size=(60, 3)))
        for name, figure in figures(found):
            assert figure.low <= figure.value <= figure.high, name
            assert figure.n == 60

    def test_the_real_rules_are_asked(self) -> None:
        names = [str(group) for group in range(200)]
        alive = stream([0, 1, 2], 0.9)
        assert diagnosis(alive, names) == []
        fired = {one.rule: one.finding for one in diagnosis(stream([1, 1, 1], 0.4), names)}
        assert set(fired) == {"signal_collapse", "group_degeneracy"}
        assert fired["signal_collapse"].about == ("neutral",)
        assert fired["signal_collapse"].severity == "critical"


def test_the_command_tells_and_draws(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    language_model: LlamaForCausalLM,
) -> None:
    folder = tmp_path / "cards" / "tiny" / "1"
    build_checkpoint("bert", folder, labels=LABELS, family="nli")
    scorer = LogProbability(Likelihood(deepcopy(language_model), letters).tokens, letters)
    monkeypatch.setattr(collapse, "read_bank", lambda data: draw(rows(), ("a", "b"), 3))
    monkeypatch.setattr(collapse, "embedded_root", lambda: tmp_path / "none")
    monkeypatch.setattr(collapse, "encoder", lambda: letters)
    monkeypatch.setattr(LogProbability, "of_backbone", lambda encode: scorer)
    plot = tmp_path / "labels.svg"
    arguments = ["--data", str(tmp_path), "--repository", str(folder), "--plot", str(plot)]
    monkeypatch.setattr("sys.argv", ["collapse", *arguments])
    collapse.main()
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(table) == 2 + 2 * 4
    assert len({line.count("|") for line in table}) == 1
    assert "<svg" in plot.read_text()
