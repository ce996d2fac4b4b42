"""verifiers, and prime-rl, which trains on its environments.

Checked against the source of verifiers 0.4.0 (tasks), and of `rubrics/rubric.py` at 00343332
(rubrics, of earlier versions).

In the configuration of a task, with the settings in environment variables:

    [env.taskset.task.rewards]
    assay = { fn = "assay_client.trainers.verifiers:reward" }

In a task of your own, an object in a method marked `@vf.reward`: `await assay(task, trace)`. In a
rubric: `vf.Rubric(funcs=[RubricReward("code@2", on_failure="raise")])`.

An error that a task raises is recorded on the rollout. A rubric counts **every** Exception as 0.0,
so there the error is a BaseException, `Unscored`, which ends the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NoReturn

from assay_client.errors import AssayError
from assay_client.trainers._items import prompt_and_response
from assay_client.trainers._rewards import AsyncReward, refuse_all_but_raise, shared_reward

_REFUSAL = "verifiers makes a number of every reward, and would train on what it made of a None"


class Unscored(BaseException):
    """A sample without a score. Its cause is the error itself.

    It is not an Exception, because verifiers' rubrics count each of those as the reward 0.0.
    """


class Reward(AsyncReward):
    """A reward of a task (verifiers 0.4): called with the task and the trace."""

    unsupported_on_failure: ClassVar[Mapping[str, str]] = refuse_all_but_raise(_REFUSAL)

    async def __call__(self, task: Any, trace: Any) -> float:
        """Return the score of the trace's last message, with all earlier ones as its prompt.

        Args:
            task: the task's data; `fields` may name its attributes.
            trace: verifiers' record of the rollout.

        Raises:
            AssayError: there is no score.
            ValueError: the last message is not the assistant's.
        """
        row = {name: getattr(task, name) for name in _names(task)}
        return await self.score_sample({**row, **prompt_and_response([], trace.messages)})


class RubricReward(AsyncReward):
    """A reward function of a rubric (verifiers before 0.4)."""

    unsupported_on_failure: ClassVar[Mapping[str, str]] = refuse_all_but_raise(_REFUSAL)

    async def __call__(self, prompt: Any, completion: Any, **columns: Any) -> float:
        """Return the score of a completion.

        Args:
            prompt: messages, or a text.
            completion: messages, or a text.
            **columns: the other values of the rubric; `fields` may name them, and those in `info`.

        Raises:
            Unscored: there is no score.
        """
        info = columns.get("info")
        values = {**columns, **(info if isinstance(info, Mapping) else {})}
        try:
            return await self.score_sample({**values, **prompt_and_response(prompt, completion)})
        except ValueError as error:
            raise Unscored(str(error)) from error

    def raise_failure(self, error: AssayError) -> NoReturn:
        """Raise an error that a rubric does not count as 0.0."""
        raise Unscored(str(error)) from error


async def reward(task: Any, trace: Any) -> float:
    """Return the reward of a trace, set by environment variables; see `Reward`."""
    return await shared_reward(Reward)(task, trace)


def _names(task: Any) -> list[str]:
    return [name for name in vars(task) if not name.startswith("_")]
