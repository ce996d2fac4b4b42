"""SkyRL: an environment of one turn. In the configuration, `environment.env_class: assay`."""

from skyrl_gym.envs import register
from skyrl_gym.envs.base_text_env import BaseTextEnv

from assay_client.trainers.skyrl import AssayStep


class AssayEnv(AssayStep, BaseTextEnv):
    """What the policy says is scored by Assay."""


register(id="assay", entry_point="my_env:AssayEnv")
