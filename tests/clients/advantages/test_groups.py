"""Advantages of groups, against the papers' figures and against another way to compute them."""

import math
import random
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from assay_client.advantages import delta_advantages, gdpo_advantages, two_step_advantages

EITHER = [[0.0, 0.0], [1.0, 0.0]]
BOTH = [[0.0, 0.0], [1.0, 1.0]]


def rms(values: Any) -> float:
    return math.sqrt(sum(value**2 for value in values) / len(values))


def draw(groups: int, size: int, channels: int, nulls: float) -> tuple[list[Any], list[int]]:
    numbers = random.Random(3)
    rows = [
        [None if numbers.random() < nulls else numbers.gauss(k, 1 + k) for k in range(channels)]
        for _ in range(groups * size)
    ]
    return rows, [row // size for row in range(groups * size)]


@pytest.mark.parametrize("rewards", [EITHER, BOTH])
def test_grpo_gives_both_of_gdpos_examples_the_same_advantages(rewards: list[list[float]]) -> None:
    summed = [[sum(row)] for row in rewards]
    advantages, _ = gdpo_advantages(summed, [0, 0], whiten="none")
    assert advantages == pytest.approx([-0.707, 0.707], abs=1e-3)


def test_gdpo_distinguishes_its_two_examples() -> None:
    advantages, info = gdpo_advantages(EITHER + BOTH, ["a", "a", "b", "b"], whiten="none")
    assert advantages == pytest.approx([-0.707, 0.707, -1.414, 1.414], abs=1e-3)
    assert info.zero_variance == (0.0, 0.5)
    assert info.f_nt == 1.0


@pytest.mark.parametrize("compute", [gdpo_advantages, two_step_advantages])
def test_trivial_groups_in_the_statistics_inflate_all_others(compute: Any) -> None:
    column = [0.0, 1.0] * 24 + [1.0, 1.0] * 76
    rewards: Any = column if compute is two_step_advantages else [[value] for value in column]
    groups = [row // 2 for row in range(200)]
    excluded, info = compute(rewards, groups, exclude_zero_variance=True)
    included, _ = compute(rewards, groups, exclude_zero_variance=False)
    assert info.f_nt == pytest.approx(0.24)
    assert excluded[0] / included[0] == pytest.approx(math.sqrt(0.24), abs=0.01)
    assert excluded[48:] == [0.0] * 152


def test_a_floor_keeps_noise_on_a_constant_channel_small() -> None:
    numbers = random.Random(1)
    rewards = [[0.5 + numbers.gauss(0, 5e-4)] for _ in range(8 * 500)]
    groups = [row // 8 for row in range(len(rewards))]
    plain, _ = gdpo_advantages(rewards, groups, whiten="none")
    floored, info = gdpo_advantages(rewards, groups, whiten="none", min_std=0.02)
    assert rms(plain) == pytest.approx(0.77, abs=0.01)
    assert rms(floored) == pytest.approx(0.023, abs=0.001)
    assert info.zero_variance == (1.0,)
    assert info.f_nt == 0.0
    whitened, _ = gdpo_advantages(rewards, groups, min_std=0.02)
    assert whitened == floored, "noise is not scaled up by the whitening either"


def test_null_rewards_stay_out_of_all_others() -> None:
    rows, groups = draw(groups=6, size=4, channels=2, nulls=0.3)
    rows[0] = [None, math.nan]
    advantages, info = gdpo_advantages(rows, groups)
    assert advantages[0] == 0.0
    assert all(map(math.isfinite, advantages))
    assert info.n_null == tuple(
        sum(row[k] is None or math.isnan(row[k]) for row in rows) for k in range(2)
    )
    without, _ = gdpo_advantages(rows[1:], groups[1:])
    assert advantages[1:] == pytest.approx(without)


def test_a_batch_without_any_reward_has_no_advantages() -> None:
    advantages, info = gdpo_advantages([[None], [None]], [0, 0])
    assert advantages == [0.0, 0.0]
    assert info.f_nt == 0.0
    assert two_step_advantages([None, math.nan], [0, 0])[0] == [0.0, 0.0]


def test_a_gate_counts_the_easy_reward_only_where_the_hard_one_is_reached() -> None:
    rows = [[1.0, 1.0], [1.0, 0.0], [0.0, 1.0], [1.0, None]]
    gate = ("length", "correct", 1.0)
    names = ["length", "correct"]
    gated, info = gdpo_advantages(rows, [0] * 4, gates=[gate], channels=names, whiten="none")
    by_hand = [[1.0, 1.0], [0.0, 0.0], [0.0, 1.0], [None, None]]
    assert gated == gdpo_advantages(by_hand, [0] * 4, whiten="none")[0]
    assert info.n_null == (1, 1)
    assert gated == gdpo_advantages(rows, [0] * 4, gates=[(0, 1, 1.0)], whiten="none")[0]


def test_a_gate_on_a_channel_with_negative_rewards_is_refused() -> None:
    with pytest.raises(ValueError, match="gated channel 0 has a negative reward"):
        gdpo_advantages([[-1.0, 1.0], [0.0, 0.0]], [0, 0], gates=[(0, 1, 1.0)])


def test_weights_of_zero_make_a_channel_count_for_nothing() -> None:
    rows, groups = draw(groups=4, size=4, channels=2, nulls=0.0)
    one = gdpo_advantages([[row[0]] for row in rows], groups)[0]
    assert gdpo_advantages(rows, groups, weights=[1.0, 0.0])[0] == pytest.approx(one)


def test_two_processes_whiten_as_one() -> None:
    rows, groups = draw(groups=6, size=4, channels=2, nulls=0.1)
    whole, _ = gdpo_advantages(rows, groups)
    halves = [(rows[:8], groups[:8]), (rows[8:], groups[8:])]
    both, sent = threading.Barrier(2, timeout=30), [[0.0], [0.0]]

    def run(rank: int) -> Any:
        def reduce_sums(own: list[float]) -> list[float]:
            sent[rank] = own
            both.wait()
            sums = [a + b for a, b in zip(*sent, strict=True)]
            both.wait()
            return sums

        return gdpo_advantages(*halves[rank], reduce_fn=reduce_sums)[0]

    with ThreadPoolExecutor(2) as threads:
        parts = [value for half in threads.map(run, range(2)) for value in half]
    assert parts == pytest.approx(whole)


def test_tensors_and_arrays_come_back_as_they_were_given() -> None:
    rows, groups = draw(groups=4, size=4, channels=2, nulls=0.0)
    expected, _ = gdpo_advantages(rows, groups)
    tensor, _ = gdpo_advantages(torch.tensor(rows), torch.tensor(groups))
    assert tensor.dtype == torch.float32
    assert tensor.tolist() == pytest.approx(expected, abs=1e-5)
    array, _ = gdpo_advantages(np.array(rows), np.array(groups))
    assert isinstance(array, np.ndarray)
    assert array.tolist() == pytest.approx(expected)
    whole, _ = two_step_advantages(torch.tensor([0, 1, 1, 1]), torch.tensor([0, 0, 1, 1]))
    assert whole.dtype == torch.float32
    assert whole[0] == -whole[1] != 0


def test_advantages_equal_the_formula_as_verl_has_it() -> None:
    """Check against verl's formula: eps 1e-6, all groups in the statistics, one token a row."""
    rows, groups = draw(groups=5, size=4, channels=3, nulls=0.0)
    weights = torch.tensor([1.0, 0.5, 2.0], dtype=torch.double)
    grouped = torch.tensor(rows, dtype=torch.double).view(5, 4, 3)
    scores = (grouped - grouped.mean(1, keepdim=True)) / (grouped.std(1, keepdim=True) + 1e-6)
    summed = (scores * weights).sum(-1).reshape(-1)
    expected = (summed - summed.mean()) / (summed.std() + 1e-6)
    ours, _ = gdpo_advantages(
        rows, groups, weights=weights.tolist(), eps=1e-6, exclude_zero_variance=False
    )
    assert ours == pytest.approx(expected.tolist(), abs=1e-9)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rewards": [[math.inf], [0.0]]}, "infinite"),
        ({"rewards": []}, "N rows"),
        ({"rewards": [[1.0], [1.0, 2.0]]}, "N rows"),
        ({"group_ids": [0]}, "group_ids"),
        ({"weights": [1.0, 2.0]}, "weights"),
        ({"min_std": -1.0}, "min_std"),
        ({"gates": [("a", "b", 1.0)]}, "gate"),
        ({"gates": [(0, 7, 1.0)]}, "gate"),
        ({"whiten": "group"}, "whiten"),
        ({"channels": ["a", "b"]}, "channels"),
    ],
)
def test_arguments_that_do_not_fit_are_named(given: dict[str, Any], message: str) -> None:
    arguments = {"rewards": [[0.0], [1.0]], "group_ids": [0, 0], **given}
    with pytest.raises(ValueError, match=message):
        gdpo_advantages(**arguments)


def test_delta_advantages_are_gains_that_sum_to_zero() -> None:
    scores = [0.25, 0.5, 0.25, 1.0]
    ((first, *later),), counted = delta_advantages([scores])
    assert first == 0.25 - 1.0
    assert later == [after - before for before, after in pairwise(scores)]
    assert first + sum(later) == 0.0
    assert counted == [True]


def test_delta_advantages_mask_a_rollout_with_a_null_score() -> None:
    advantages, counted = delta_advantages([[0.5, None], [0.5], [], [0.0, math.nan]])
    assert advantages == [[0.0, 0.0], [0.0], [], [0.0, 0.0]]
    assert counted == [False, True, False, False]


def test_importing_advantages_imports_neither_numpy_nor_torch() -> None:
    program = f"""
import sys
sys.path[:0] = {sys.path!r}
from assay_client.advantages import gdpo_advantages
assert gdpo_advantages([[0.0], [1.0]], [0, 0])[0][1] > 0
assert not {{"numpy", "torch"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-I", "-S", "-c", program], check=True)
