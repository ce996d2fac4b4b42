"""Rewards that trainers call from pools of threads and processes: AReaL 1.0.4 (api/reward_api.py),
OpenRLHF 0.11.2 (utils/agent.py), SkyRL 0.3.0 with skyrl-gym 0.4.0."""

import asyncio
import functools
import importlib.util
import math
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from assay_client import APITimeoutError, ItemFailedError
from assay_client.trainers import areal, failures, openrlhf, skyrl

TOO_LONG = "word " * 5000
EXPECTED = math.log(3 / 2)
ENVIRONMENT = {"ASSAY_REWARD_MODEL": "reference", "ASSAY_REWARD_ON_FAILURE": "raise"}


@pytest.fixture
def configure(set_environment: Any, assay_url: str) -> Any:
    set_environment(ASSAY_URL=assay_url, **ENVIRONMENT)
    return set_environment


DATA: dict[str, Any] = {"messages": "one two three", "answer": "42"}


class TestAreal:
    def test_the_reward_can_be_pickled_with_its_arguments(
        self, configure: Any, assay_url: str
    ) -> None:
        reward = areal.Reward("reference", on_failure="raise", url=assay_url)
        arguments = ("<|im_start|>user…", "three two<|im_end|>\n", [1], [2])
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(max_workers=1, mp_context=spawn) as pool:
            by_object = functools.partial(reward, *arguments, **DATA)
            assert pool.submit(by_object).result(60) == pytest.approx(EXPECTED)
            by_function = functools.partial(areal.reward, *arguments, **DATA)
            assert pool.submit(by_function).result(60) == pytest.approx(EXPECTED)
            failing = functools.partial(reward, "p", TOO_LONG, [1], [2], **DATA)
            with pytest.raises(ItemFailedError, match="input_too_long"):
                pool.submit(failing).result(60)

    def test_the_timeout_is_shorter_than_areals(
        self, set_environment: Any, server: Any, close_later: Any, canned: Any
    ) -> None:
        server.always = canned.answer(hang=True)
        assert areal.Reward("m", on_failure="raise").settings.timeout == 12.0
        set_environment(ASSAY_REWARD_TIMEOUT="3")
        assert areal.Reward("m", on_failure="raise").settings.timeout == 3.0
        reward = close_later(areal.Reward("m", on_failure="raise", url=server.url, timeout=0.1))
        with pytest.raises(APITimeoutError):
            reward("p", "c", [1], [2], messages="p")
        with pytest.raises(ValueError, match="below 15 seconds"):
            areal.Reward("m", on_failure="raise", timeout=15)

    @pytest.mark.parametrize("policy", ["none", "skip"])
    def test_none_and_skip_are_refused(self, policy: str) -> None:
        with pytest.raises(ValueError, match=r"no place for a missing one. Choose 'raise'"):
            areal.Reward("m", on_failure=policy)

    def test_the_messages_of_the_row_are_the_prompt(
        self, set_environment: Any, server: Any, close_later: Any
    ) -> None:
        fields = {**areal.Reward.fields, "value": "level"}
        reward = close_later(areal.Reward("m", on_failure="raise", url=server.url, fields=fields))
        chat = [{"role": "user", "content": "q"}]
        assert reward("p", "done</s> <|im_end|>", [1], [2], messages=chat, level=3) == 3.0
        item = server.received[0].body["items"][0]
        assert (item["prompt"], item["response"]) == (chat, "done")


class TestOpenRLHF:
    """The function in its file, as OpenRLHF loads it, called in a thread with a single sample."""

    @pytest.fixture
    def reward_func(self, tmp_path: Path) -> Any:
        path = tmp_path / "reward.py"
        path.write_text("from assay_client.trainers.openrlhf import reward_func\n")
        spec = importlib.util.spec_from_file_location("reward_func", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.reward_func

    async def test_reward_func_scores_a_sample(self, reward_func: Any, configure: Any) -> None:
        query = ["one two threethree two<|im_end|>"]
        result = await asyncio.to_thread(reward_func, query, ["one two three"], ["42"])
        assert result["rewards"] == result["scores"] == pytest.approx([EXPECTED])
        assert result["extra_logs"] == {}

    def test_fields_may_name_the_fields_of_a_label(
        self, reward_func: Any, configure: Any, server: Any
    ) -> None:
        configure(ASSAY_URL=server.url, ASSAY_REWARD_FIELDS="response=response,value=level")
        assert reward_func(["pr"], ["p"], ['{"level": 2}'])["rewards"] == [2.0]

    def test_a_failed_item_raises_and_is_counted(self, reward_func: Any, configure: Any) -> None:
        with pytest.raises(ItemFailedError):
            reward_func(["p" + TOO_LONG], ["p"], [None])
        ((_, counts),) = failures()
        assert counts.failed == 1

    def test_a_query_that_does_not_begin_with_its_prompt_is_refused(
        self, reward_func: Any, configure: Any
    ) -> None:
        with pytest.raises(ValueError, match="/compat/openrlhf/MODEL"):
            reward_func(["<bos>p r"], ["p"], [None])

    @pytest.mark.parametrize("policy", ["none", "skip"])
    def test_none_and_skip_are_refused(self, policy: str, reward_func: Any, configure: Any) -> None:
        configure(ASSAY_REWARD_ON_FAILURE=policy)
        with pytest.raises(ValueError, match=r"ends the run later. Choose 'raise'"):
            reward_func(["pr"], ["p"], [None])

    def test_the_function_can_be_pickled(self, configure: Any, in_new_process: Any) -> None:
        result = in_new_process(openrlhf.reward_func, ["one twotwo"], ["one two"], [None])
        assert result["rewards"] == pytest.approx([0.0])


class BaseTextEnv:
    """The other base class of an environment of SkyRL-Gym."""

    def __init__(self) -> None:
        self.turns = 0


class AssayEnv(skyrl.AssayStep, BaseTextEnv):
    pass


CHAT = [{"role": "user", "content": "one two three"}]
EXTRAS = {"reward_spec": {"ground_truth": "4", "question": "one two three"}, "max_turns": 1}


class TestSkyrl:
    async def test_an_episode_is_scored(self, set_environment: Any, assay_url: str) -> None:
        config = {
            "model": "reference",
            "on_failure": "raise",
            "url": assay_url,
            "fields": {"prompt": "question", "response": "response"},
        }
        env = AssayEnv(env_config=config, extras=EXTRAS)
        loop = asyncio.get_running_loop()
        assert await loop.run_in_executor(None, env.init, CHAT) == (CHAT, {})
        step = await loop.run_in_executor(None, env.step, "three two")
        assert step["reward"] == pytest.approx(EXPECTED)
        assert (step["done"], step["observations"], step["metadata"]) == (True, [], {})
        assert env.turns == 0
        assert AssayEnv(config, EXTRAS).reward is env.reward

    def test_the_conversation_is_the_prompt(self, set_environment: Any, server: Any) -> None:
        set_environment(
            ASSAY_URL=server.url, ASSAY_REWARD_FIELDS="prompt=prompt,value=level", **ENVIRONMENT
        )
        env = AssayEnv(extras={"level": 5})
        env.init(CHAT)
        assert env.step("x")["reward"] == 5.0
        assert server.received[0].body["items"] == [{"prompt": CHAT, "value": 5}]

    def test_a_failed_item_raises(self, configure: Any) -> None:
        configure(ASSAY_REWARD_FIELDS="prompt=question,response=response")
        env = AssayEnv({}, EXTRAS)
        env.init(CHAT)
        with pytest.raises(ItemFailedError):
            env.step(TOO_LONG)

    @pytest.mark.parametrize("policy", ["none", "skip"])
    def test_none_and_skip_are_refused(self, policy: str, set_environment: Any) -> None:
        with pytest.raises(ValueError, match=r"cannot be left out. Choose 'raise'"):
            AssayEnv({"model": "m", "on_failure": policy})
        with pytest.raises(ValueError, match="mode is no setting"):
            AssayEnv({"mode": "m"})
