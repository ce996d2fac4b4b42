"""Rewards of ms-swift 4.6.0 (rl_core/grpo_algorithm.py), rllm (eval and rewards at 013917c7 and
33f147a2) and verifiers (0.4.0; rubrics at 00343332), called as those call them."""

import asyncio
import functools
import importlib
import inspect
import math
from types import SimpleNamespace
from typing import Any

import pytest

from assay_client import ItemFailedError
from assay_client.trainers import _rewards, ms_swift, rllm, verifiers

TOO_LONG = "word " * 5000
EXPECTED = math.log(3 / 2)
ENVIRONMENT = {"ASSAY_REWARD_MODEL": "reference", "ASSAY_REWARD_ON_FAILURE": "raise"}
MISSING = pytest.approx(math.nan, nan_ok=True)


@pytest.fixture
def configure(set_environment: Any, assay_url: str) -> Any:
    set_environment(ASSAY_URL=assay_url, **ENVIRONMENT)
    return set_environment


async def close_shared_rewards() -> None:
    for reward in _rewards.SHARED_REWARDS.values():
        if isinstance(reward, _rewards.AsyncReward):
            await reward.aclose()


FIELDS = {"prompt": "question", "response": "response"}


class TestSwift:
    def rewards(self, reward: Any, answers: list[str], questions: list[str]) -> list[float]:
        """Return the rewards, with NaN for None, as ms-swift does."""
        rows = [
            [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            for question, answer in zip(questions, answers, strict=True)
        ]
        state = SimpleNamespace(global_step=3)
        columns = {"messages": rows, "question": questions, "trainer_state": state}
        rewards = reward(answers, **columns)
        if inspect.iscoroutinefunction(reward.__call__):
            rewards = asyncio.run(self._await_and_close(reward, rewards))
        return [math.nan if reward is None else reward for reward in rewards]

    async def _await_and_close(self, reward: Any, rewards: Any) -> Any:
        try:
            return await rewards
        finally:
            await reward.aclose()

    @pytest.fixture(params=[ms_swift.Reward, ms_swift.AsyncReward], ids=["sync", "async"])
    def orm(self, request: pytest.FixtureRequest, close_later: Any, configure: Any) -> Any:
        """A function that returns what `orms[name](args=args)` does."""

        def make(size: int = 2, **settings: Any) -> Any:
            kind = functools.partial(request.param, **{"fields": FIELDS, **settings})
            made = kind(args=SimpleNamespace(num_generations=size))
            return close_later(made) if isinstance(made, ms_swift.Reward) else made

        return make

    def test_rewards_are_scores(self, orm: Any) -> None:
        result = self.rewards(orm(), ["three two", "one"], ["one two three"] * 2)
        assert result == pytest.approx([EXPECTED, math.log(2 / 3)])

    def test_the_conversation_before_the_completion_is_the_prompt(
        self, orm: Any, server: Any
    ) -> None:
        fields = {"prompt": "prompt", "response": "response", "value": "level"}
        reward = orm(url=server.url, fields=fields, run="r")
        columns = {"messages": [[{"role": "user", "content": "q"}, {"role": "assistant"}]]}
        result = reward(["a"], **columns, level=[2.0], trainer_state=SimpleNamespace(global_step=3))
        if inspect.isawaitable(result):
            result = asyncio.run(self._await_and_close(reward, result))
        assert result == [2.0]
        (received,) = server.received
        assert received.body["items"][0]["prompt"] == [{"role": "user", "content": "q"}]
        assert received.body["run"] == {"id": "r", "step": 3, "split": "train"}

    def test_raise_raises_the_items_error(self, orm: Any) -> None:
        with pytest.raises(ItemFailedError):
            self.rewards(orm(), [TOO_LONG, "one"], ["one two three"] * 2)

    def test_none_is_refused(self, orm: Any) -> None:
        with pytest.raises(ValueError, match=r"as 0 among those of its prompt. Choose 'raise', or"):
            orm(on_failure="none")

    def test_skip_leaves_out_the_whole_group(self, orm: Any) -> None:
        answers = ["one", TOO_LONG, "three two", "one"]
        questions = ["one two"] * 2 + ["one two three"] * 2
        result = self.rewards(orm(on_failure="skip"), answers, questions)
        assert result == [MISSING, MISSING, pytest.approx(EXPECTED), pytest.approx(math.log(2 / 3))]

    def test_skip_requires_whole_groups(self, orm: Any) -> None:
        with pytest.raises(ValueError, match="not all of it is on this rank"):
            self.rewards(orm(size=4, on_failure="skip"), [TOO_LONG, "one"], ["one two"] * 2)

    def test_the_reward_can_be_pickled(self, configure: Any, in_new_process: Any) -> None:
        reward = ms_swift.Reward(fields=FIELDS)
        result = in_new_process(reward, ["three two"], messages=[[{}]], question=["one two three"])
        assert result == pytest.approx([EXPECTED])


class TestRllm:
    def episode(self, *responses: Any, **artifacts: Any) -> SimpleNamespace:
        steps = [SimpleNamespace(output=None, model_response=text) for text in responses]
        trajectory = SimpleNamespace(output=None, steps=steps)
        return SimpleNamespace(artifacts=artifacts, trajectories=[trajectory] if responses else [])

    def test_evaluate_scores_the_answer_of_an_episode(self, configure: Any) -> None:
        row = {"question": "one two three", "ground_truth": "4"}
        task = SimpleNamespace(instruction="one two three", metadata={"ground_truth": "4"})
        for given in (row, SimpleNamespace(data=row, spec=None), task):
            assert rllm.evaluate(given, self.episode(answer="three two")) == pytest.approx(EXPECTED)
        steps = self.episode("one", "three two", "")
        assert rllm.evaluate(row, steps) == pytest.approx(EXPECTED)
        with pytest.raises(ValueError, match="no 'response' to score"):
            rllm.evaluate(row, self.episode())

    def test_reward_fn_scores_an_action(self, configure: Any, in_new_process: Any) -> None:
        info = {"problem": "one two three"}
        result = rllm.reward_fn(info, "three two")
        assert result == rllm.RewardOutput(result.reward, {}, None)
        assert result.reward == pytest.approx(EXPECTED)
        assert rllm.reward_fn(info, SimpleNamespace(action="three two")) == result
        assert in_new_process(rllm.reward_fn, info, "three two") == result
        assert (
            in_new_process(rllm.evaluate, info, self.episode(answer="three two")) == result.reward
        )

    def test_a_failed_item_raises(self, configure: Any) -> None:
        with pytest.raises(ItemFailedError):
            rllm.reward_fn({"prompt": "one"}, TOO_LONG)

    @pytest.mark.parametrize("policy", ["none", "skip"])
    def test_none_and_skip_are_refused(self, policy: str, configure: Any) -> None:
        configure(ASSAY_REWARD_ON_FAILURE=policy)
        with pytest.raises(ValueError, match=r"a number of every reward. Choose 'raise'"):
            rllm.reward_fn({"prompt": "one"}, "one")


class TestVerifiersTask:
    task = SimpleNamespace(idx=0, prompt="one two three", question="one two three")

    def trace(self, answer: str) -> SimpleNamespace:
        messages = [("system", "be brief"), ("user", "one two three"), ("assistant", answer)]
        return SimpleNamespace(
            messages=[SimpleNamespace(role=role, content=text) for role, text in messages]
        )

    async def score(self, fn: Any, answer: str) -> float:
        """Call a configured function by the names of its parameters, as a task does."""
        available = {"task": self.task, "trace": self.trace(answer)}
        wanted = inspect.signature(fn).parameters
        return float(await fn(**{name: available[name] for name in wanted}))

    async def test_the_function_is_loaded_by_its_path(
        self, configure: Any, in_new_process: Any
    ) -> None:
        configure(ASSAY_REWARD_FIELDS="prompt=question,response=response")
        module, _, name = "assay_client.trainers.verifiers:reward".partition(":")
        function = getattr(importlib.import_module(module), name)
        assert await self.score(function, "three two") == pytest.approx(EXPECTED)
        with pytest.raises(ItemFailedError):
            await self.score(function, TOO_LONG)
        await close_shared_rewards()
        result = in_new_process(function, self.task, self.trace("three two"))
        assert result == pytest.approx(EXPECTED)

    async def test_earlier_messages_are_the_prompt(self, configure: Any, server: Any) -> None:
        fields = {"prompt": "prompt", "response": "response", "value": "idx"}
        reward = verifiers.Reward("code", on_failure="raise", url=server.url, fields=fields)
        assert await self.score(reward, "hi") == 0.0
        item = server.received[0].body["items"][0]
        assert [message["role"] for message in item["prompt"]] == ["system", "user"]
        assert item["response"] == "hi"
        await reward.aclose()

    @pytest.mark.parametrize("policy", ["none", "skip"])
    def test_none_and_skip_are_refused(self, policy: str) -> None:
        for kind in (verifiers.Reward, verifiers.RubricReward):
            with pytest.raises(ValueError, match=r"made of a None. Choose 'raise'"):
                kind("code", on_failure=policy)


class TestVerifiersRubric:
    async def call(self, func: Any, completion: Any, **state: Any) -> float:
        """Call a function by name, as a rubric does, which counts every Exception as 0.0."""
        merged = {"prompt": "one two three", "completion": completion, "answer": "4", "task": None}
        merged |= {"state": state, "info": {}, "parser": object()}
        assert not {"prompts", "completions", "states"} & set(inspect.signature(func).parameters)
        assert func.__name__
        result = func(**merged)
        return float(await result if inspect.isawaitable(result) else result)

    def test_unscored_is_no_exception(self) -> None:
        assert not issubclass(verifiers.Unscored, Exception)

    async def test_rewards_are_scores(self, configure: Any, in_new_process: Any) -> None:
        reward = verifiers.RubricReward()
        chat = [{"role": "assistant", "content": "three two"}]
        assert await self.call(reward, chat) == pytest.approx(EXPECTED)
        await reward.aclose()
        assert in_new_process(reward, "one two three", "three two") == pytest.approx(EXPECTED)

    async def test_a_failure_raises_unscored(self, configure: Any) -> None:
        reward = verifiers.RubricReward()
        with pytest.raises(verifiers.Unscored, match="input_too_long") as caught:
            await self.call(reward, TOO_LONG)
        assert isinstance(caught.value.__cause__, ItemFailedError)
        with pytest.raises(verifiers.Unscored, match="assistant's is last"):
            await self.call(reward, [])
        await reward.aclose()
