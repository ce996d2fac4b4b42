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
TRUTH = math.log(3 / 2)
TOLD = {"ASSAY_REWARD_MODEL": "reference", "ASSAY_REWARD_ON_FAILURE": "raise"}
MISSING = pytest.approx(math.nan, nan_ok=True)


@pytest.fixture
def set_up(told: Any, assay_url: str) -> Any:
    told(ASSAY_URL=assay_url, **TOLD)
    return told


async def close() -> None:
    for reward in _rewards._MADE.values():
        if isinstance(reward, _rewards.AsyncReward):
            await reward.aclose()


FIELDS = {"prompt": "question", "response": "response"}


class TestSwift:
    def rewards(self, reward: Any, answers: list[str], questions: list[str]) -> list[float]:
        """NaN where the function gives None, as ms-swift makes of it."""
        rows = [
            [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            for question, answer in zip(questions, answers, strict=True)
        ]
        state = SimpleNamespace(global_step=3)
        columns = {"messages": rows, "question": questions, "trainer_state": state}
        found = reward(answers, **columns)
        if inspect.iscoroutinefunction(reward.__call__):
            found = asyncio.run(self._closed(reward, found))
        return [math.nan if one is None else one for one in found]

    async def _closed(self, reward: Any, found: Any) -> Any:
        try:
            return await found
        finally:
            await reward.aclose()

    @pytest.fixture(params=[ms_swift.Reward, ms_swift.AsyncReward], ids=["sync", "async"])
    def orm(self, request: pytest.FixtureRequest, closing: Any, set_up: Any) -> Any:
        """What `orms[name](args=args)` gives."""

        def make(size: int = 2, **settings: Any) -> Any:
            kind = functools.partial(request.param, **{"fields": FIELDS, **settings})
            made = kind(args=SimpleNamespace(num_generations=size))
            return closing(made) if isinstance(made, ms_swift.Reward) else made

        return make

    def test_it_scores(self, orm: Any) -> None:
        found = self.rewards(orm(), ["three two", "one"], ["one two three"] * 2)
        assert found == pytest.approx([TRUTH, math.log(2 / 3)])

    def test_the_conversation_before_the_completion_is_the_prompt(
        self, orm: Any, server: Any
    ) -> None:
        fields = {"prompt": "prompt", "response": "response", "value": "level"}
        reward = orm(url=server.url, fields=fields, run="r")
        columns = {"messages": [[{"role": "user", "content": "q"}, {"role": "assistant"}]]}
        found = reward(["a"], **columns, level=[2.0], trainer_state=SimpleNamespace(global_step=3))
        if inspect.isawaitable(found):
            found = asyncio.run(self._closed(reward, found))
        assert found == [2.0]
        (seen,) = server.seen
        assert seen.body["items"][0]["prompt"] == [{"role": "user", "content": "q"}]
        assert seen.body["run"] == {"id": "r", "step": 3, "split": "train"}

    def test_raise(self, orm: Any) -> None:
        with pytest.raises(ItemFailedError):
            self.rewards(orm(), [TOO_LONG, "one"], ["one two three"] * 2)

    def test_none_would_be_a_zero(self, orm: Any) -> None:
        with pytest.raises(ValueError, match=r"as 0 among those of its prompt. Choose 'raise', or"):
            orm(on_failure="none")

    def test_skip_leaves_all_of_the_prompt_out(self, orm: Any) -> None:
        answers = ["one", TOO_LONG, "three two", "one"]
        questions = ["one two"] * 2 + ["one two three"] * 2
        found = self.rewards(orm(on_failure="skip"), answers, questions)
        assert found == [MISSING, MISSING, pytest.approx(TRUTH), pytest.approx(math.log(2 / 3))]

    def test_skip_needs_whole_groups(self, orm: Any) -> None:
        with pytest.raises(ValueError, match="not all of it is on this rank"):
            self.rewards(orm(size=4, on_failure="skip"), [TOO_LONG, "one"], ["one two"] * 2)

    def test_it_can_be_called_elsewhere(self, set_up: Any, elsewhere: Any) -> None:
        reward = ms_swift.Reward(fields=FIELDS)
        found = elsewhere(reward, ["three two"], messages=[[{}]], question=["one two three"])
        assert found == pytest.approx([TRUTH])


class TestRllm:
    def episode(self, *said: Any, **artifacts: Any) -> SimpleNamespace:
        steps = [SimpleNamespace(output=None, model_response=text) for text in said]
        trajectory = SimpleNamespace(output=None, steps=steps)
        return SimpleNamespace(artifacts=artifacts, trajectories=[trajectory] if said else [])

    def test_an_evaluator(self, set_up: Any) -> None:
        row = {"question": "one two three", "ground_truth": "4"}
        task = SimpleNamespace(instruction="one two three", metadata={"ground_truth": "4"})
        for given in (row, SimpleNamespace(data=row, spec=None), task):
            assert rllm.evaluate(given, self.episode(answer="three two")) == pytest.approx(TRUTH)
        walked = self.episode("one", "three two", "")
        assert rllm.evaluate(row, walked) == pytest.approx(TRUTH)
        with pytest.raises(ValueError, match="no 'response' to score"):
            rllm.evaluate(row, self.episode())

    def test_a_reward_function(self, set_up: Any, elsewhere: Any) -> None:
        info = {"problem": "one two three"}
        found = rllm.reward_fn(info, "three two")
        assert found == rllm.RewardOutput(pytest.approx(TRUTH), {}, None)
        assert rllm.reward_fn(info, SimpleNamespace(action="three two")) == found
        assert elsewhere(rllm.reward_fn, info, "three two") == found
        assert elsewhere(rllm.evaluate, info, self.episode(answer="three two")) == found.reward

    def test_a_failure_raises(self, set_up: Any) -> None:
        with pytest.raises(ItemFailedError):
            rllm.reward_fn({"prompt": "one"}, TOO_LONG)

    @pytest.mark.parametrize("policy", ["none", "skip"])
    def test_what_it_cannot_bear_is_refused(self, policy: str, set_up: Any) -> None:
        set_up(ASSAY_REWARD_ON_FAILURE=policy)
        with pytest.raises(ValueError, match=r"a number of every reward. Choose 'raise'"):
            rllm.reward_fn({"prompt": "one"}, "one")


class TestVerifiersTask:
    task = SimpleNamespace(idx=0, prompt="one two three", question="one two three")

    def trace(self, answer: str) -> SimpleNamespace:
        said = [("system", "be brief"), ("user", "one two three"), ("assistant", answer)]
        return SimpleNamespace(
            messages=[SimpleNamespace(role=role, content=text) for role, text in said]
        )

    async def score(self, fn: Any, answer: str) -> float:
        """As a task calls a function that its configuration plugs in, by the names it takes."""
        available = {"task": self.task, "trace": self.trace(answer)}
        wanted = inspect.signature(fn).parameters
        return float(await fn(**{name: available[name] for name in wanted}))

    async def test_a_plugged_function(self, set_up: Any, elsewhere: Any) -> None:
        set_up(ASSAY_REWARD_FIELDS="prompt=question,response=response")
        module, _, name = "assay_client.trainers.verifiers:reward".partition(":")
        function = getattr(importlib.import_module(module), name)
        assert await self.score(function, "three two") == pytest.approx(TRUTH)
        with pytest.raises(ItemFailedError):
            await self.score(function, TOO_LONG)
        await close()
        found = elsewhere(function, self.task, self.trace("three two"))
        assert found == pytest.approx(TRUTH)

    async def test_all_that_came_before_is_the_prompt(self, set_up: Any, server: Any) -> None:
        fields = {"prompt": "prompt", "response": "response", "value": "idx"}
        reward = verifiers.Reward("code", on_failure="raise", url=server.url, fields=fields)
        assert await self.score(reward, "hi") == 0.0
        item = server.seen[0].body["items"][0]
        assert [turn["role"] for turn in item["prompt"]] == ["system", "user"]
        assert item["response"] == "hi"
        await reward.aclose()

    @pytest.mark.parametrize("policy", ["none", "skip"])
    def test_what_it_cannot_bear_is_refused(self, policy: str) -> None:
        for kind in (verifiers.Reward, verifiers.RubricReward):
            with pytest.raises(ValueError, match=r"made of a None. Choose 'raise'"):
                kind("code", on_failure=policy)


class TestVerifiersRubric:
    async def call(self, func: Any, completion: Any, **state: Any) -> float:
        """As a rubric calls a function: by name. It makes 0.0 of every Exception."""
        merged = {"prompt": "one two three", "completion": completion, "answer": "4", "task": None}
        merged |= {"state": state, "info": {}, "parser": object()}
        assert not {"prompts", "completions", "states"} & set(inspect.signature(func).parameters)
        assert func.__name__
        found = func(**merged)
        return float(await found if inspect.isawaitable(found) else found)

    def test_what_it_raises_is_none_of_those(self) -> None:
        assert not issubclass(verifiers.Unscored, Exception)

    async def test_it_scores(self, set_up: Any, elsewhere: Any) -> None:
        reward = verifiers.RubricReward()
        chat = [{"role": "assistant", "content": "three two"}]
        assert await self.call(reward, chat) == pytest.approx(TRUTH)
        await reward.aclose()
        assert elsewhere(reward, "one two three", "three two") == pytest.approx(TRUTH)

    async def test_a_failure_is_no_zero(self, set_up: Any) -> None:
        reward = verifiers.RubricReward()
        with pytest.raises(verifiers.Unscored, match="input_too_long") as caught:
            await self.call(reward, TOO_LONG)
        assert isinstance(caught.value.__cause__, ItemFailedError)
        with pytest.raises(verifiers.Unscored, match="assistant's is last"):
            await self.call(reward, [])
        await reward.aclose()
