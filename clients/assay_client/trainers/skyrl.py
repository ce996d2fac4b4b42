"""SkyRL: an environment of SkyRL-Gym. Read from skyrl-gym 0.4.0 and SkyRL 0.3.0.

    # my_env.py
    from skyrl_gym.envs.base_text_env import BaseTextEnv
    from assay_client.trainers.skyrl import AssayStep

    class AssayEnv(AssayStep, BaseTextEnv):
        pass

    # where SkyRL starts
    skyrl_gym.register(id="assay", entry_point="my_env:AssayEnv")

It is told by its section of the configuration, or by the process's environment. A reward is a
number in SkyRL, so `none` and `skip` are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from assay_client.trainers._items import messages_of
from assay_client.trainers._rewards import SyncReward, only_raise, reward_of
from assay_client.trainers._settings import split_settings


class Reward(SyncReward):
    """The reward that all episodes of a process share."""

    refused: ClassVar[Mapping[str, str]] = only_raise(
        "SkyRL adds the rewards of the steps up, and an episode without one cannot be left out"
    )


class AssayStep:
    """The methods of an environment of one turn: what the policy says is scored, and that is all.

    Args:
        env_config: the environment's section of SkyRL's configuration; holds settings.
        extras: the columns of the row. `fields` may name them, and those of `reward_spec`.

    Raises:
        ValueError: a setting is missing or cannot be meant.
    """

    def __init__(self, env_config: Any = None, extras: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        told = split_settings(env_config, ()) if isinstance(env_config, Mapping) else {}
        self.reward = reward_of(Reward, **told)
        self._extras = dict(extras or {})
        self._prompt: Any = None

    def init(self, prompt: Any) -> tuple[Any, dict[str, Any]]:
        """Takes the prompt, and gives it on as it is."""
        self._prompt = messages_of(prompt)
        return prompt, {}

    def step(self, action: str) -> dict[str, Any]:
        """Scores what the policy said; the episode is over.

        Raises:
            AssayError: there is no score.
        """
        spec = self._extras.get("reward_spec")
        named = {**self._extras, **(spec if isinstance(spec, Mapping) else {})}
        sources = {**named, "prompt": self._prompt, "response": action}
        score = self.reward.score_of(sources)
        return {"observations": [], "reward": score, "done": True, "metadata": {}}
