"""verifiers, and prime-rl, which trains on its environments. Read from verifiers 0.4.0 (tasks), and
from `rubrics/rubric.py` at 00343332 (rubrics, of earlier versions).

In the configuration of a task, told by the environment:

    [env.taskset.task.rewards]
    assay = { fn = "assay_client.trainers.verifiers:reward" }

In a task of your own, an object in a method marked `@vf.reward`: `await assay(task, trace)`. In a
rubric: `vf.Rubric(funcs=[RubricReward("code@2", on_failure="raise")])`.

An error is put down on the rollout where a task raises it. A rubric takes **every** Exception for
0.0, so there the error is one that is none: `Unscored`, which ends the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NoReturn

from assay_client.errors import AssayError
from assay_client.trainers._items import turn
from assay_client.trainers._rewards import AsyncReward, only_raise, reward_of

_NUMBERS = "verifiers makes a number of every reward, and would train on what it made of a None"


class Unscored(BaseException):
    """A sample has no score. Not an Exception, because verifiers' rubrics take each of those for
    the reward 0.0; its cause is the error itself."""


class Reward(AsyncReward):
    """A reward of a task (verifiers 0.4): called with the task and the trace."""

    refused: ClassVar[Mapping[str, str]] = only_raise(_NUMBERS)

    async def __call__(self, task: Any, trace: Any) -> float:
        """The score of the trace's last message, after all that came before it.

        Args:
            task: the task's data; `fields` may name what it holds.
            trace: verifiers' record of the rollout.

        Raises:
            AssayError: there is no score.
            ValueError: the last message is not the assistant's.
        """
        row = {name: getattr(task, name) for name in _names(task)}
        return await self.score_of({**row, **turn([], trace.messages)})


class RubricReward(AsyncReward):
    """A reward function of a rubric (verifiers before 0.4)."""

    refused: ClassVar[Mapping[str, str]] = only_raise(_NUMBERS)

    async def __call__(self, prompt: Any, completion: Any, **columns: Any) -> float:
        """The score of a completion.

        Args:
            prompt: messages, or a text.
            completion: messages, or a text.
            **columns: what the rubric knows besides; `fields` may name it, and what `info` holds.

        Raises:
            Unscored: there is no score.
        """
        info = columns.get("info")
        named = {**columns, **(info if isinstance(info, Mapping) else {})}
        try:
            return await self.score_of({**named, **turn(prompt, completion)})
        except ValueError as error:
            raise Unscored(str(error)) from error

    def give_up(self, error: AssayError) -> NoReturn:
        """Raises what a rubric does not take for a zero."""
        raise Unscored(str(error)) from error


async def reward(task: Any, trace: Any) -> float:
    """As `Reward`, told by the environment."""
    return await reward_of(Reward)(task, trace)


def _names(task: Any) -> list[str]:
    return [name for name in vars(task) if not name.startswith("_")]
