"""verl's custom reward function, load and called as verl 0.9.1 does (trainer/ppo/reward.py)."""

import asyncio
import importlib
import inspect
import math
from functools import partial
from typing import Any

import pytest

from assay_client import ItemFailedError
from assay_client.trainers import _rewards, failures

TOO_LONG = "word " * 5000
ROW = {
    "data_source": "my/data",
    "solution_str": "three two",
    "ground_truth": "42",
    "extra_info": {"prompt": "one two three", "index": 3, "num_turns": 2},
}
EXPECTED = math.log(3 / 2)
KWARGS = {"model": "reference", "on_failure": "raise"}


def load(name: str, kwargs: dict[str, Any]) -> Any:
    """Load the function as verl does from its configuration: a path, a name, and reward_kwargs."""
    function = getattr(importlib.import_module("assay_client.trainers.verl"), name)

    def call(**row: Any) -> Any:
        return function(**{**row, **kwargs})

    async def call_async(**row: Any) -> Any:
        return await function(**{**row, **kwargs})

    return partial(call_async if inspect.iscoroutinefunction(function) else call)


async def run_single(compute_score: Any, row: dict[str, Any]) -> float:
    """Score a sample as the `naive` manager does."""
    if inspect.iscoroutinefunction(compute_score):
        result = await compute_score(**row)
    else:
        loop = asyncio.get_running_loop()
        result = await loop.run_in_executor(None, lambda: compute_score(**row))
    return float(result["score"] if isinstance(result, dict) else result)


async def close_shared_rewards() -> None:
    for reward in _rewards.SHARED_REWARDS.values():
        if isinstance(reward, _rewards.AsyncReward):
            await reward.aclose()


@pytest.mark.parametrize("name", ["compute_score", "compute_score_sync"])
async def test_compute_score_scores_a_sample(
    name: str, set_environment: Any, assay_url: str
) -> None:
    function = load(name, {**KWARGS, "url": assay_url})
    assert await run_single(function, ROW) == pytest.approx(EXPECTED)
    routed = {**ROW, "reward_router_address": "h:1", "reward_model_tokenizer": object()}
    assert await run_single(function, routed) == pytest.approx(EXPECTED)
    assert len(_rewards.SHARED_REWARDS) == 1
    await close_shared_rewards()


async def test_concurrent_samples_are_sent_together(set_environment: Any, server: Any) -> None:
    fields = {"prompt": "question", "response": "response", "value": "level"}
    function = load(
        "compute_score",
        {"model": "code", "on_failure": "raise", "url": server.url, "fields": fields},
    )
    rows = [{**ROW, "extra_info": {"question": "q", "level": i}} for i in range(500)]
    scores = await asyncio.gather(*(run_single(function, row) for row in rows))
    assert scores == [float(i) for i in range(500)]
    assert len(server.received) == 8
    await close_shared_rewards()


def test_compute_score_batch_scores_all_samples(set_environment: Any, assay_url: str) -> None:
    function = load("compute_score_batch", {**KWARGS, "url": assay_url})
    result = function(
        data_sources=["a", "b"],
        solution_strs=["one", "two"],
        ground_truths=[None, "1"],
        extra_infos=[{"prompt": "one"}, {"prompt": "one"}],
    )
    assert result == [
        {"score": pytest.approx(math.log(2))},
        {"score": pytest.approx(math.log(1 / 2))},
    ]


async def test_the_ground_truth_may_be_an_object_and_the_prompt_an_array(
    set_environment: Any, server: Any
) -> None:
    class Array:
        def tolist(self) -> list[dict[str, str]]:
            return [{"role": "user", "content": "q"}]

    set_environment(
        ASSAY_URL=server.url, ASSAY_REWARD_MODEL="code", ASSAY_REWARD_ON_FAILURE="raise"
    )
    fields = {"prompt": "prompt", "response": "response", "tests": "tests", "value": "value"}
    function = load("compute_score_sync", {"fields": fields})
    row = {
        **ROW,
        "ground_truth": '{"tests": ["assert True"]}',
        "extra_info": {"prompt": Array(), "value": 1},
    }
    assert await run_single(function, row) == 1.0
    item = server.received[0].body["items"][0]
    assert (item["prompt"], item["tests"]) == (Array().tolist(), ["assert True"])


@pytest.mark.parametrize("name", ["compute_score", "compute_score_sync"])
async def test_a_sample_without_a_score_raises(
    name: str, set_environment: Any, assay_url: str
) -> None:
    function = load(name, {**KWARGS, "url": assay_url})
    with pytest.raises(ItemFailedError):
        await run_single(function, {**ROW, "solution_str": TOO_LONG})
    ((_, counts),) = failures()
    assert counts.reasons == {"input_too_long": 1}
    await close_shared_rewards()


async def test_a_substitute_is_counted_as_failed(set_environment: Any, assay_url: str) -> None:
    options = {"on_error": {"substitute": -1.0}}
    function = load("compute_score_sync", {**KWARGS, "url": assay_url, "options": options})
    assert await run_single(function, {**ROW, "solution_str": TOO_LONG}) == -1.0
    ((_, counts),) = failures()
    assert (counts.failed, counts.substituted) == (1, 1)


@pytest.mark.parametrize("policy", ["none", "skip"])
async def test_none_and_skip_are_refused(policy: str, set_environment: Any) -> None:
    function = load("compute_score", {"model": "m", "on_failure": policy})
    with pytest.raises(ValueError, match=r"a tensor, which takes no None. Choose 'raise'"):
        await run_single(function, ROW)


async def test_misspelt_and_missing_settings_are_named(set_environment: Any) -> None:
    with pytest.raises(ValueError, match=r"on_fail is no setting; there are: api_key, fields"):
        await run_single(load("compute_score", {"model": "m", "on_fail": "raise"}), ROW)
    function = load("compute_score", {"model": "m", "on_failure": "raise"})
    with pytest.raises(ValueError, match=r"no 'prompt' to score; there is: .*question"):
        await run_single(function, {**ROW, "extra_info": {"question": "q"}})


def test_the_functions_can_be_pickled(
    set_environment: Any, assay_url: str, in_new_process: Any
) -> None:
    set_environment(
        ASSAY_URL=assay_url, ASSAY_REWARD_MODEL="reference", ASSAY_REWARD_ON_FAILURE="raise"
    )
    module = importlib.import_module("assay_client.trainers.verl")
    assert in_new_process(module.compute_score, **ROW) == {"score": pytest.approx(EXPECTED)}
    assert in_new_process(module.compute_score_sync, **ROW) == {"score": pytest.approx(EXPECTED)}
