"""A real server with the family that needs no weights, and a process to call rewards in."""

import asyncio
import inspect
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.servers import listening

from assay.settings import Settings
from assay_client.trainers import _rewards

PROGRAM = """
import asyncio, inspect, pickle, sys
function, args, fields = pickle.load(sys.stdin.buffer)
result = function(*args, **fields)
if inspect.isawaitable(result):
    async def wait():
        return await result
    result = asyncio.run(wait())
modules = {name.partition(".")[0] for name in sys.modules}
sys.stdout.buffer.write(pickle.dumps((result, modules)))
"""
NOT_IMPORTED = {
    "trl",
    "verl",
    "slime",
    "swift",
    "areal",
    "skyrl_gym",
    "rllm",
    "verifiers",
    "openrlhf",
}
NOT_IMPORTED |= {"axolotl", "torch", "transformers", "numpy", "pydantic", "openai"}

TOO_LONG = "word " * 5000


@pytest.fixture(scope="session")
def assay_url() -> Iterator[str]:
    with listening(Settings(models=("reference",))) as url:
        yield url


@pytest.fixture(autouse=True)
def _no_reward_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("ASSAY_REWARD_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def in_new_process() -> Callable[..., Any]:
    """A function that pickles another, calls it in a new process, and returns its result."""

    def call(function: Any, *args: Any, **fields: Any) -> Any:
        ran = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            input=pickle.dumps((function, args, fields)),
            capture_output=True,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert ran.returncode == 0, ran.stderr.decode()
        result, modules = pickle.loads(ran.stdout)
        assert not modules & NOT_IMPORTED
        return result

    return call


@pytest.fixture
def close_later() -> Iterator[Callable[[Any], Any]]:
    """A function that returns a reward, which is closed at the end."""
    rewards: list[Any] = []

    def take(reward: Any) -> Any:
        rewards.append(reward)
        return reward

    yield take
    for reward in rewards:
        closed = reward.aclose() if hasattr(reward, "aclose") else reward.close()
        if inspect.isawaitable(closed):
            asyncio.run(_awaited(closed))


async def _awaited(closed: Any) -> None:
    await closed


@pytest.fixture
def set_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """A function that sets variables for rewards that are loaded by their path.

    The test starts without such rewards; synchronous ones are closed at the end.
    """
    monkeypatch.setattr(_rewards, "SHARED_REWARDS", {})

    def set_variables(**variables: str) -> None:
        for name, text in variables.items():
            monkeypatch.setenv(name, text)

    yield set_variables
    for reward in _rewards.SHARED_REWARDS.values():
        if isinstance(reward, _rewards.SyncReward):
            reward.close()
