"""The function that an Axolotl configuration names (0.19.0, core/trainers/grpo)."""

import importlib
import inspect
import math
from typing import Any

import pytest

from assay_client import ItemFailedError
from assay_client.trainers import axolotl, failures

NAME = "assay_client.trainers.axolotl.reward"
TOO_LONG = "word " * 5000


def loaded(name: str) -> Any:
    """As Axolotl finds a function by its path."""
    module, _, attribute = name.rpartition(".")
    function = getattr(importlib.import_module(module), attribute)
    assert len(inspect.signature(function).parameters) >= 2
    return function


def test_it_is_named_in_the_configuration_and_told_by_the_environment(
    told: Any, assay_url: str, elsewhere: Any
) -> None:
    told(ASSAY_URL=assay_url, ASSAY_REWARD_MODEL="reference", ASSAY_REWARD_ON_FAILURE="raise")
    reward = loaded(NAME)
    asked: dict[str, Any] = {
        "prompts": ["one two"],
        "completions": ["two"],
        "completion_ids": [[1]],
    }
    assert reward(**asked, solution=["3"]) == pytest.approx([math.log(2 / 2)])
    assert elsewhere(reward, **asked) == pytest.approx([math.log(2 / 2)])
    with pytest.raises(ItemFailedError):
        reward(prompts=["one"], completions=[TOO_LONG])
    ((settings, counts),) = failures()
    assert settings.model == "reference"
    assert (counts.scored, counts.failed) == (1, 1)


def test_it_says_what_it_was_not_told(told: Any) -> None:
    with pytest.raises(ValueError, match="set ASSAY_REWARD_MODEL"):
        loaded(NAME)(["p"], ["c"])
    told(ASSAY_REWARD_MODEL="code")
    with pytest.raises(ValueError, match="set ASSAY_REWARD_ON_FAILURE"):
        loaded(NAME)(["p"], ["c"])


@pytest.mark.parametrize("policy", ["none", "skip"])
def test_what_would_become_a_zero_is_refused(policy: str, told: Any) -> None:
    with pytest.raises(ValueError, match=r"count a missing reward as 0. Choose 'raise'"):
        axolotl.Reward("code", on_failure=policy)
    told(ASSAY_REWARD_MODEL="code", ASSAY_REWARD_ON_FAILURE=policy)
    with pytest.raises(ValueError, match=f"on_failure='{policy}' is refused here"):
        axolotl.reward(["p"], ["c"])
