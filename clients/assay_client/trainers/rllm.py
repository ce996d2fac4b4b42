"""rllm: evaluators and reward functions.

Checked against the source of rllm at 013917c7 (eval) and 33f147a2 (rewards).

    from assay_client.trainers.rllm import evaluate

    assay = rllm.evaluator(evaluate)

They are configured by environment variables (`ASSAY_URL`, `ASSAY_REWARD_MODEL`,
`ASSAY_REWARD_ON_FAILURE`, …). A reward is a number in rllm, so `none` and `skip` are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from assay_client.trainers._items import to_messages
from assay_client.trainers._rewards import SyncReward, refuse_all_but_raise, shared_reward

# The names of the prompt in rllm's data sets.
_PROMPT_COLUMNS = ("prompt", "instruction", "question", "problem")


class _Reward(SyncReward):
    unsupported_on_failure: ClassVar[Mapping[str, str]] = refuse_all_but_raise(
        "rllm makes a number of every reward"
    )


@dataclass(frozen=True)
class RewardOutput:
    """The result of a reward function, as far as rllm reads it.

    A reward model does not decide between right and wrong, so `is_correct` is None.
    """

    reward: float
    metadata: Mapping[str, Any] = field(default_factory=dict)
    is_correct: bool | None = None


def evaluate(task: Any, episode: Any) -> float:
    """Return the score of an episode's answer. This is an evaluator of rllm.

    Args:
        task: the row, or rllm's object of it.
        episode: rllm's; its `artifacts["answer"]` is scored, or else the output of its last
            trajectory.

    Raises:
        AssayError: there is no score.
        ValueError: there is no prompt in the task, or no answer in the episode.
    """
    return shared_reward(_Reward).score_sample(_sources(_row(task), _answer(episode)))


def reward_fn(task_info: Mapping[str, Any], action: Any) -> RewardOutput:
    """Return the score of one action. This is a reward function of rllm.

    Args:
        task_info: the row.
        action: a text, or rllm's object of it.

    Raises:
        AssayError: there is no score.
    """
    text = action if isinstance(action, str) else getattr(action, "action", None)
    return RewardOutput(shared_reward(_Reward).score_sample(_sources(task_info, text)))


def _sources(row: Mapping[str, Any], response: Any) -> dict[str, Any]:
    prompt = next((row[name] for name in _PROMPT_COLUMNS if row.get(name) is not None), None)
    return {**row, "prompt": to_messages(prompt), "response": response}


def _row(task: Any) -> Mapping[str, Any]:
    if isinstance(task, Mapping):
        return task
    data = getattr(task, "data", None) or getattr(task, "metadata", None) or {}
    instruction = getattr(task, "instruction", None)
    return {**data, **({} if instruction is None else {"instruction": instruction})}


def _answer(episode: Any) -> str | None:
    """Return the episode's answer; None if there is none."""
    if "answer" in episode.artifacts:
        return str(episode.artifacts["answer"])
    if not episode.trajectories:
        return None
    last = episode.trajectories[-1]
    outputs = [last.output, *(_output(step) for step in reversed(last.steps))]
    return next((str(text) for text in outputs if text), None)


def _output(step: Any) -> Any:
    return getattr(step, "output", None) or getattr(step, "model_response", None)
