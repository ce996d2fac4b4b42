"""The studies of the code model: best of n, RM-Bench, likelihood, latency; and the calibration."""

import gzip
import json
import random
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from recipes.code.calibrate import cross_validated_confidence, fit_calibration
from recipes.code.data import Pack, Program
from recipes.code.studies.best_of_n import pass_probability, pass_rate_curve, rule_scores
from recipes.code.studies.candidates import Candidate, Task, read_tasks
from recipes.code.studies.latency import Scorer, measure_durations
from recipes.code.studies.likelihood import Likelihood
from recipes.code.studies.rm_bench import BenchmarkPrompt, accuracy_table, win_matrix
from recipes.plots import Line, save_lines


def encode_letters(text: str) -> list[int]:
    return [ord(letter) % 90 + 3 for letter in text]


TASK = Task(
    "p", "Add.", None, tuple(Candidate("x" * size, size in (2, 5)) for size in (1, 2, 3, 5, 8))
)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=7),
    st.data(),
)
def test_the_pass_probability_is_the_mean_over_all_subsets(
    candidates: list[tuple[int, bool]], data: st.DataObject
) -> None:
    size = data.draw(st.integers(1, len(candidates)))
    chances = []
    for drawn in combinations(candidates, size):
        best = max(score for score, _ in drawn)
        equal = [passed for score, passed in drawn if score == best]
        chances.append(sum(equal) / len(equal))
    scores, passed = zip(*candidates, strict=True)
    assert pass_probability(scores, passed, size) == pytest.approx(sum(chances) / len(chances))


def test_each_rule_chooses_by_its_name() -> None:
    found = {
        name: pass_probability(scores[0], [row.passed for row in TASK.candidates], 5)
        for name, scores in rule_scores([TASK]).items()
    }
    assert found == pytest.approx({"random": 0.4, "longest": 0, "shortest": 0, "oracle": 1})


def test_with_one_candidate_every_rule_passes_equally_often() -> None:
    task = Task("p", "Add.", None, TASK.candidates + TASK.candidates[:3])
    for scores in rule_scores([task]).values():
        assert pass_rate_curve([task], scores)[1] == pytest.approx([0.375])


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as lines:
        lines.writelines(json.dumps(row) + "\n" for row in rows)


def test_tasks_are_dev_problems_with_decided_passing_and_failing_candidates(tmp_path: Path) -> None:
    def sample(problem: str, label: str, **more: Any) -> dict[str, Any]:
        row = {"problem": problem, "variant": "orig", "split": "dev", "label": label}
        return {**row, "missing_import": False, "code": f"{problem} {label}", **more}

    samples = [sample("a", "pass"), sample("a", "edge_fail"), sample("a", "timeout")]
    samples += [sample("b", "pass"), sample("b", "pass")]
    samples += [sample("c", "pass", split="train"), sample("c", "fail", split="train")]
    samples += [sample("d", "pass", missing_import=True), sample("d", "fail")]
    pair = {"problem": "a", "variant": "orig", "split": "dev", "prompt": "Do.", "chosen": "x"}
    write_rows(tmp_path / "code" / "samples_humaneval.jsonl.gz", [])
    write_rows(tmp_path / "code" / "samples_mbpp.jsonl.gz", samples)
    write_rows(tmp_path / "code" / "pairs_natural_dev.jsonl.gz", [{**pair, "rejected": "y"}])
    write_rows(tmp_path / "code" / "pairs_mutation_dev.jsonl.gz", [])
    problems = [{"problem": name, "tests": f"assert {name}"} for name in "abcd"]
    write_rows(tmp_path / "code" / "problems.jsonl.gz", problems)
    (task,) = read_tasks(tmp_path, 2)
    assert (task.problem, task.prompt, task.tests) == ("a", "Do.", "assert a")
    assert {(row.program, row.passed) for row in task.candidates} == {
        ("a pass", True),
        ("a edge_fail", False),
    }


def test_rm_bench_counts_a_tie_as_wrong_and_splits_by_style() -> None:
    prompt = BenchmarkPrompt(
        task="1",
        language="python",
        prompt="p",
        right=("a", "bbb", "ccccc"),
        wrong=("dd", "eee", "f"),
    )
    wins = win_matrix(prompt, lambda prompt, answer: len(answer))
    assert wins.tolist() == [[0, 0, 0], [1, 0, 1], [1, 1, 1]]
    found = {name: figure.value for name, figure in accuracy_table([prompt], wins[None]).items()}
    assert found == pytest.approx({"easy": 1, "normal": 1 / 3, "hard": 1 / 3, "average": 5 / 9})


def test_a_calibration_rises_and_is_cross_validated_over_problems() -> None:
    chance = np.random.default_rng(5)
    distances = chance.uniform(0, 4, 3000)
    won = (chance.uniform(size=3000) < 0.5 + distances / 10).astype(float)
    found = fit_calibration(distances, won)
    for distance in (0.5, 2.0, 3.5):
        assert found.confidence_at(distance) == pytest.approx(0.5 + distance / 10, abs=0.08)
    problems = [str(place // 10) for place in range(3000)]
    confidence = cross_validated_confidence(distances, won, problems)
    assert confidence == pytest.approx(0.5 + distances / 10, abs=0.13)


def test_the_likelihood_of_a_program_in_a_pack_equals_that_of_its_own_row() -> None:
    torch.manual_seed(2)
    config = LlamaConfig(
        vocab_size=99,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    plain = LlamaForCausalLM(config).eval()
    chance = random.Random(4)
    rows = [tuple(chance.randrange(99) for _ in range(size)) for size in (5, 9, 2)]
    asked = tuple(chance.randrange(99) for _ in range(7))
    expected = []
    for row in rows:
        with torch.no_grad():
            logarithms = plain(torch.tensor([[*asked, *row]])).logits[0].log_softmax(-1)
        expected.append([float(logarithms[6 + place, token]) for place, token in enumerate(row)])
    likelihood = Likelihood(plain, encode_letters)
    pack = Pack(asked, tuple(Program(str(row), row, is_chosen=True) for row in rows))
    for found, wanted in zip(likelihood.token_likelihoods(pack), expected, strict=True):
        assert found.tolist() == pytest.approx(wanted, abs=1e-4)
    means = likelihood.means([("p", "a"), ("p", "b" * 400), ("p", "a"), ("q", "c" * 200)])
    assert sorted(key for key, mean in means.items() if -9 < mean < 0) == [
        ("p", "a"),
        ("p", "b" * 400),
        ("q", "c" * 200),
    ]


def test_scorers_alternate_on_every_case_and_the_first_case_warms_up() -> None:
    seen: list[tuple[str, str]] = []

    def recording(name: str) -> Scorer:
        return Scorer(name, lambda task, row: seen.append((name, row.program)))

    scorers = [recording("model"), recording("tests")]
    cases = [(TASK, candidate) for candidate in TASK.candidates[:2]]
    found = measure_durations(scorers, cases)
    assert {name: len(seconds) for name, seconds in found.items()} == {"model": 2, "tests": 2}
    assert seen == [(name, program) for program in ("x", "x", "xx") for name in found]


def test_a_plot_of_the_same_lines_is_the_same_file(tmp_path: Path) -> None:
    lines = [Line("a", [1, 2, 4], [0.1, 0.2, 0.3]), Line("b", [1, 2, 4], [0.3, 0.2, 0.1])]
    for name in ("one", "two"):
        save_lines(tmp_path / name, lines, x_title="x", y_title="y")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    save_lines(tmp_path / "ten", lines, x_title="x", y_title="y", base=10)
    assert (tmp_path / "ten").read_text(encoding="utf-8").count("<path") > 2
