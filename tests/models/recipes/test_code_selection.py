"""How the code model is measured: best of n, RM-Bench's rule, the calibration, the latency."""

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

from recipes.code.best_of_n import curve, passing, rules
from recipes.code.calibrate import fitted, kept_word
from recipes.code.candidates import Candidate, Task, read_tasks
from recipes.code.data import Pack, Program
from recipes.code.latency import Judge, measured
from recipes.code.likelihood import Likelihood
from recipes.code.rm_bench import Case, matrix, table
from recipes.plots import Line, save_lines


def letters(text: str) -> list[int]:
    return [ord(letter) % 90 + 3 for letter in text]


TASK = Task(
    "p", "Add.", None, tuple(Candidate("x" * size, size in (2, 5)) for size in (1, 2, 3, 5, 8))
)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=7),
    st.data(),
)
def test_the_chance_of_a_pass_is_that_over_all_subsets(
    candidates: list[tuple[int, bool]], data: st.DataObject
) -> None:
    size = data.draw(st.integers(1, len(candidates)))
    chances = []
    for drawn in combinations(candidates, size):
        best = max(score for score, _ in drawn)
        equal = [passed for score, passed in drawn if score == best]
        chances.append(sum(equal) / len(equal))
    scores, passed = zip(*candidates, strict=True)
    assert passing(scores, passed, size) == pytest.approx(sum(chances) / len(chances))


def test_rules_choose_by_what_they_are_called() -> None:
    found = {
        name: passing(scores[0], [one.passed for one in TASK.candidates], 5)
        for name, scores in rules([TASK]).items()
    }
    assert found == pytest.approx({"random": 0.4, "longest": 0, "shortest": 0, "oracle": 1})


def test_one_candidate_is_no_choice() -> None:
    task = Task("p", "Add.", None, TASK.candidates + TASK.candidates[:3])
    for scores in rules([task]).values():
        assert curve([task], scores)[1] == pytest.approx([0.375])


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as lines:
        lines.writelines(json.dumps(row) + "\n" for row in rows)


def test_tasks_are_held_out_mixed_and_decided(tmp_path: Path) -> None:
    def sample(problem: str, label: str, **more: Any) -> dict[str, Any]:
        row = {"problem": problem, "variant": "orig", "split": "dev", "label": label}
        return {**row, "missing_import": False, "code": f"{problem} {label}", **more}

    samples = [sample("a", "pass"), sample("a", "edge_fail"), sample("a", "timeout")]
    samples += [sample("b", "pass"), sample("b", "pass")]
    samples += [sample("c", "pass", split="train"), sample("c", "fail", split="train")]
    samples += [sample("d", "pass", missing_import=True), sample("d", "fail")]
    pair = {"problem": "a", "variant": "orig", "split": "dev", "prompt": "Do.", "chosen": "x"}
    write(tmp_path / "code" / "samples_humaneval.jsonl.gz", [])
    write(tmp_path / "code" / "samples_mbpp.jsonl.gz", samples)
    write(tmp_path / "code" / "pairs_natural_dev.jsonl.gz", [{**pair, "rejected": "y"}])
    write(tmp_path / "code" / "pairs_mutation_dev.jsonl.gz", [])
    problems = [{"problem": name, "tests": f"assert {name}"} for name in "abcd"]
    write(tmp_path / "code" / "problems.jsonl.gz", problems)
    (task,) = read_tasks(tmp_path, 2)
    assert (task.problem, task.prompt, task.tests) == ("a", "Do.", "assert a")
    assert {(one.program, one.passed) for one in task.candidates} == {
        ("a pass", True),
        ("a edge_fail", False),
    }


def test_rm_bench_counts_a_tie_as_wrong_and_parts_by_style() -> None:
    case = Case("1", "python", "p", ("a", "bbb", "ccccc"), ("dd", "eee", "f"))
    wins = matrix(case, lambda prompt, answer: len(answer))
    assert wins.tolist() == [[0, 0, 0], [1, 0, 1], [1, 1, 1]]
    found = {name: figure.value for name, figure in table([case], wins[None]).items()}
    assert found == pytest.approx({"easy": 1, "normal": 1 / 3, "hard": 1 / 3, "average": 5 / 9})


def test_a_calibration_rises_and_is_judged_on_other_problems() -> None:
    chance = np.random.default_rng(5)
    distances = chance.uniform(0, 4, 3000)
    won = (chance.uniform(size=3000) < 0.5 + distances / 10).astype(float)
    found = fitted(distances, won)
    for distance in (0.5, 2.0, 3.5):
        assert found.of(distance) == pytest.approx(0.5 + distance / 10, abs=0.08)
    told = kept_word(distances, won, [str(place // 10) for place in range(3000)])
    assert told == pytest.approx(0.5 + distances / 10, abs=0.13)


def test_the_likelihood_of_a_program_in_a_pack_is_that_of_a_row_of_its_own() -> None:
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
            told = plain(torch.tensor([[*asked, *row]])).logits[0].log_softmax(-1)
        expected.append([float(told[6 + place, token]) for place, token in enumerate(row)])
    likelihood = Likelihood(plain, letters)
    pack = Pack(asked, tuple(Program(str(row), row, good=True) for row in rows))
    for found, wanted in zip(likelihood.tokens(pack), expected, strict=True):
        assert found.tolist() == pytest.approx(wanted, abs=1e-4)
    means = likelihood.means([("p", "a"), ("p", "b" * 400), ("p", "a"), ("q", "c" * 200)])
    assert sorted(key for key, mean in means.items() if -9 < mean < 0) == [
        ("p", "a"),
        ("p", "b" * 400),
        ("q", "c" * 200),
    ]


def test_every_judge_sees_every_case_in_turn_and_the_first_warms_up() -> None:
    seen: list[tuple[str, str]] = []
    judges = [
        Judge(name, lambda task, one, name=name: seen.append((name, one.program)))
        for name in ("model", "tests")
    ]
    cases = [(TASK, one) for one in TASK.candidates[:2]]
    found = measured(judges, cases)
    assert {name: len(seconds) for name, seconds in found.items()} == {"model": 2, "tests": 2}
    assert seen == [(judge, program) for program in ("x", "x", "xx") for judge in found]


def test_a_plot_is_the_same_each_time(tmp_path: Path) -> None:
    lines = [Line("a", [1, 2, 4], [0.1, 0.2, 0.3]), Line("b", [1, 2, 4], [0.3, 0.2, 0.1])]
    for name in ("one", "two"):
        save_lines(tmp_path / name, lines, "x", "y")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    save_lines(tmp_path / "ten", lines, "x", "y", base=10)
    assert (tmp_path / "ten").read_text(encoding="utf-8").count("<path") > 2
