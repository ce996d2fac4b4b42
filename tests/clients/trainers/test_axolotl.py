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


def load(name: str) -> Any:
    """Load a function by its path, as Axolotl does."""
    module, _, attribute = name.rpartition(".")
    function = getattr(importlib.import_module(module), attribute)
    assert len(inspect.signature(function).parameters) >= 2
    return function


def test_the_function_is_loaded_by_its_path_and_configured_by_the_environment(
    set_environment: Any, assay_url: str, in_new_process: Any
) -> None:
    set_environment(
        ASSAY_URL=assay_url, ASSAY_REWARD_MODEL="reference", ASSAY_REWARD_ON_FAILURE="raise"
    )
    reward = load(NAME)
    arguments: dict[str, Any] = {
        "prompts": ["one two"],
        "completions": ["two"],
        "completion_ids": [[1]],
    }
    assert reward(**arguments, solution=["3"]) == pytest.approx([math.log(2 / 2)])
    assert in_new_process(reward, **arguments) == pytest.approx([math.log(2 / 2)])
    with pytest.raises(ItemFailedError):
        reward(prompts=["one"], completions=[TOO_LONG])
    ((settings, counts),) = failures()
    assert settings.model == "reference"
    assert (counts.scored, counts.failed) == (1, 1)


def test_a_missing_variable_is_named(set_environment: Any) -> None:
    with pytest.raises(ValueError, match="set ASSAY_REWARD_MODEL"):
        load(NAME)(["p"], ["c"])
    set_environment(ASSAY_REWARD_MODEL="code")
    with pytest.raises(ValueError, match="set ASSAY_REWARD_ON_FAILURE"):
        load(NAME)(["p"], ["c"])


@pytest.mark.parametrize("policy", ["none", "skip"])
def test_none_and_skip_are_refused(policy: str, set_environment: Any) -> None:
    with pytest.raises(ValueError, match=r"count a missing reward as 0. Choose 'raise'"):
        axolotl.Reward("code", on_failure=policy)
    set_environment(ASSAY_REWARD_MODEL="code", ASSAY_REWARD_ON_FAILURE=policy)
    with pytest.raises(ValueError, match=f"on_failure='{policy}' is refused here"):
        axolotl.reward(["p"], ["c"])
