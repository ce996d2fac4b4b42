"""SkyRL: an environment of SkyRL-Gym.

Checked against the source of skyrl-gym 0.4.0 and SkyRL 0.3.0.

    # my_env.py
    from skyrl_gym.envs.base_text_env import BaseTextEnv
    from assay_client.trainers.skyrl import AssayStep

    class AssayEnv(AssayStep, BaseTextEnv):
        pass

    # where SkyRL starts
    skyrl_gym.register(id="assay", entry_point="my_env:AssayEnv")

It is configured by its section of the configuration, or by environment variables. A reward is a
number in SkyRL, so `none` and `skip` are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from assay_client.trainers._items import to_messages
from assay_client.trainers._rewards import SyncReward, refuse_all_but_raise, shared_reward
from assay_client.trainers._settings import split_settings


class Reward(SyncReward):
    """The reward that all episodes of a process share."""

    unsupported_on_failure: ClassVar[Mapping[str, str]] = refuse_all_but_raise(
        "SkyRL adds the rewards of the steps up, and an episode without one cannot be left out"
    )


class AssayStep:
    """The methods of a single-turn environment: the policy's response is scored.

    Args:
        env_config: the environment's section of SkyRL's configuration; holds settings.
        extras: the columns of the row. `fields` may name them, and those of `reward_spec`.

    Raises:
        ValueError: a setting is missing or invalid.
    """

    def __init__(self, env_config: Any = None, extras: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        settings = split_settings(env_config, ()) if isinstance(env_config, Mapping) else {}
        self.reward = shared_reward(Reward, **settings)
        self._extras = dict(extras or {})
        self._prompt: Any = None

    def init(self, prompt: Any) -> tuple[Any, dict[str, Any]]:
        """Store the prompt, and return it unchanged."""
        self._prompt = to_messages(prompt)
        return prompt, {}

    def step(self, action: str) -> dict[str, Any]:
        """Score the policy's response, and end the episode.

        Raises:
            AssayError: there is no score.
        """
        spec = self._extras.get("reward_spec")
        columns = {**self._extras, **(spec if isinstance(spec, Mapping) else {})}
        sources = {**columns, "prompt": self._prompt, "response": action}
        score = self.reward.score_sample(sources)
        return {"observations": [], "reward": score, "done": True, "metadata": {}}
