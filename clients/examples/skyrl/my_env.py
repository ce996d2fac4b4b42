"""SkyRL: a single-turn environment. In the configuration, `environment.env_class: assay`."""

from skyrl_gym.envs import register
from skyrl_gym.envs.base_text_env import BaseTextEnv

from assay_client.trainers.skyrl import AssayStep


class AssayEnv(AssayStep, BaseTextEnv):
    """A single-turn environment whose reward is a score of Assay."""


register(id="assay", entry_point="my_env:AssayEnv")
