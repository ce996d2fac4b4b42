"""rllm: evaluators and reward functions. Read from rllm at 013917c7 (eval) and 33f147a2 (rewards).

    from assay_client.trainers.rllm import evaluate

    assay = rllm.evaluator(evaluate)

They are told by the environment (`ASSAY_URL`, `ASSAY_REWARD_MODEL`, `ASSAY_REWARD_ON_FAILURE`, …).
A reward is a number in rllm, so `none` and `skip` are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from assay_client.trainers._items import messages_of
from assay_client.trainers._rewards import SyncReward, only_raise, reward_of

# What rllm's data sets call the prompt.
_PROMPTS = ("prompt", "instruction", "question", "problem")


class _Reward(SyncReward):
    refused: ClassVar[Mapping[str, str]] = only_raise("rllm makes a number of every reward")


@dataclass(frozen=True)
class RewardOutput:
    """What rllm reads of a reward function's result. A reward model knows of no right and wrong,
    so `is_correct` is None."""

    reward: float
    metadata: Mapping[str, Any] = field(default_factory=dict)
    is_correct: bool | None = None


def evaluate(task: Any, episode: Any) -> float:
    """An evaluator: the score of an episode's answer.

    Args:
        task: the row, or rllm's object of it.
        episode: rllm's; its `artifacts["answer"]` is scored, or else what its last trajectory
            gave out.

    Raises:
        AssayError: there is no score.
        ValueError: there is no prompt in the task, or no answer in the episode.
    """
    return reward_of(_Reward).score_of(_sources(_row(task), _answer(episode)))


def reward_fn(task_info: Mapping[str, Any], action: Any) -> RewardOutput:
    """A reward function: the score of one action.

    Args:
        task_info: the row.
        action: a text, or rllm's object of it.

    Raises:
        AssayError: there is no score.
    """
    text = action if isinstance(action, str) else getattr(action, "action", None)
    return RewardOutput(reward_of(_Reward).score_of(_sources(task_info, text)))


def _sources(row: Mapping[str, Any], response: Any) -> dict[str, Any]:
    prompt = next((row[name] for name in _PROMPTS if row.get(name) is not None), None)
    return {**row, "prompt": messages_of(prompt), "response": response}


def _row(task: Any) -> Mapping[str, Any]:
    if isinstance(task, Mapping):
        return task
    data = getattr(task, "data", None) or getattr(task, "metadata", None) or {}
    instruction = getattr(task, "instruction", None)
    return {**data, **({} if instruction is None else {"instruction": instruction})}


def _answer(episode: Any) -> str | None:
    """What the episode answered; None where it did not."""
    if "answer" in episode.artifacts:
        return str(episode.artifacts["answer"])
    if not episode.trajectories:
        return None
    last = episode.trajectories[-1]
    said = [last.output, *(_said(step) for step in reversed(last.steps))]
    return next((str(text) for text in said if text), None)


def _said(step: Any) -> Any:
    return getattr(step, "output", None) or getattr(step, "model_response", None)
