"""A real server with the family that needs no weights, and another process to call rewards in."""

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
found = function(*args, **fields)
if inspect.isawaitable(found):
    async def wait():
        return await found
    found = asyncio.run(wait())
modules = {name.partition(".")[0] for name in sys.modules}
sys.stdout.buffer.write(pickle.dumps((found, modules)))
"""
FOREIGN = {"trl", "verl", "slime", "swift", "areal", "skyrl_gym", "rllm", "verifiers", "openrlhf"}
FOREIGN |= {"axolotl", "torch", "transformers", "numpy", "pydantic", "openai"}

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
def elsewhere() -> Callable[..., Any]:
    """Pickles a function, calls it in a process of its own, and gives what it returned."""

    def call(function: Any, *args: Any, **fields: Any) -> Any:
        ran = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            input=pickle.dumps((function, args, fields)),
            capture_output=True,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert ran.returncode == 0, ran.stderr.decode()
        found, modules = pickle.loads(ran.stdout)
        assert not modules & FOREIGN
        return found

    return call


@pytest.fixture
def closing() -> Iterator[Callable[[Any], Any]]:
    """Takes a reward and closes it in the end."""
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
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Tells the rewards that are found by their path; what they hold is closed in the end."""
    monkeypatch.setattr(_rewards, "_MADE", {})

    def tell(**variables: str) -> None:
        for name, text in variables.items():
            monkeypatch.setenv(name, text)

    yield tell
    for reward in _rewards._MADE.values():
        if isinstance(reward, _rewards.SyncReward):
            reward.close()
