"""verl's custom reward function, loaded and called as verl 0.9.1 does (trainer/ppo/reward.py)."""

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
TRUTH = math.log(3 / 2)
KWARGS = {"model": "reference", "on_failure": "raise"}


def loaded(name: str, kwargs: dict[str, Any]) -> Any:
    """The function as verl makes it of the configuration: `pkg://`, a name, and reward_kwargs."""
    function = getattr(importlib.import_module("assay_client.trainers.verl"), name)

    def call(**row: Any) -> Any:
        return function(**{**row, **kwargs})

    async def call_async(**row: Any) -> Any:
        return await function(**{**row, **kwargs})

    return partial(call_async if inspect.iscoroutinefunction(function) else call)


async def run_single(compute_score: Any, row: dict[str, Any]) -> float:
    """What the `naive` manager does with one sample."""
    if inspect.iscoroutinefunction(compute_score):
        result = await compute_score(**row)
    else:
        loop = asyncio.get_running_loop()
        result = await loop.run_in_executor(None, lambda: compute_score(**row))
    return float(result["score"] if isinstance(result, dict) else result)


async def close() -> None:
    for reward in _rewards._MADE.values():
        if isinstance(reward, _rewards.AsyncReward):
            await reward.aclose()


@pytest.mark.parametrize("name", ["compute_score", "compute_score_sync"])
async def test_it_scores_a_sample(name: str, told: Any, assay_url: str) -> None:
    told()
    function = loaded(name, {**KWARGS, "url": assay_url})
    assert await run_single(function, ROW) == pytest.approx(TRUTH)
    routed = {**ROW, "reward_router_address": "h:1", "reward_model_tokenizer": object()}
    assert await run_single(function, routed) == pytest.approx(TRUTH)
    assert len(_rewards._MADE) == 1
    await close()


async def test_the_samples_of_a_batch_travel_together(told: Any, server: Any) -> None:
    told()
    fields = {"prompt": "question", "response": "response", "value": "level"}
    function = loaded(
        "compute_score",
        {"model": "code", "on_failure": "raise", "url": server.url, "fields": fields},
    )
    rows = [{**ROW, "extra_info": {"question": "q", "level": i}} for i in range(500)]
    scores = await asyncio.gather(*(run_single(function, row) for row in rows))
    assert scores == [float(i) for i in range(500)]
    assert len(server.seen) == 8
    await close()


def test_the_batch_manager_hands_over_all_at_once(told: Any, assay_url: str) -> None:
    told()
    function = loaded("compute_score_batch", {**KWARGS, "url": assay_url})
    found = function(
        data_sources=["a", "b"],
        solution_strs=["one", "two"],
        ground_truths=[None, "1"],
        extra_infos=[{"prompt": "one"}, {"prompt": "one"}],
    )
    assert found == [
        {"score": pytest.approx(math.log(2))},
        {"score": pytest.approx(math.log(1 / 2))},
    ]


async def test_the_truth_may_be_an_object_and_the_prompt_an_array(told: Any, server: Any) -> None:
    class Array:
        def tolist(self) -> list[dict[str, str]]:
            return [{"role": "user", "content": "q"}]

    told(ASSAY_URL=server.url, ASSAY_REWARD_MODEL="code", ASSAY_REWARD_ON_FAILURE="raise")
    fields = {"prompt": "prompt", "response": "response", "tests": "tests", "value": "value"}
    function = loaded("compute_score_sync", {"fields": fields})
    row = {
        **ROW,
        "ground_truth": '{"tests": ["assert True"]}',
        "extra_info": {"prompt": Array(), "value": 1},
    }
    assert await run_single(function, row) == 1.0
    item = server.seen[0].body["items"][0]
    assert (item["prompt"], item["tests"]) == (Array().tolist(), ["assert True"])


@pytest.mark.parametrize("name", ["compute_score", "compute_score_sync"])
async def test_a_sample_without_a_score_raises(name: str, told: Any, assay_url: str) -> None:
    told()
    function = loaded(name, {**KWARGS, "url": assay_url})
    with pytest.raises(ItemFailedError):
        await run_single(function, {**ROW, "solution_str": TOO_LONG})
    ((_, counts),) = failures()
    assert counts.reasons == {"input_too_long": 1}
    await close()


async def test_a_substitute_must_be_named(told: Any, assay_url: str) -> None:
    told()
    options = {"on_error": {"substitute": -1.0}}
    function = loaded("compute_score_sync", {**KWARGS, "url": assay_url, "options": options})
    assert await run_single(function, {**ROW, "solution_str": TOO_LONG}) == -1.0
    ((_, counts),) = failures()
    assert (counts.failed, counts.substituted) == (1, 1)


@pytest.mark.parametrize("policy", ["none", "skip"])
async def test_what_verl_cannot_bear_is_refused(policy: str, told: Any) -> None:
    told()
    function = loaded("compute_score", {"model": "m", "on_failure": policy})
    with pytest.raises(ValueError, match=r"a tensor, which takes no None. Choose 'raise'"):
        await run_single(function, ROW)


async def test_what_is_misspelt_or_missing_is_named(told: Any) -> None:
    told()
    with pytest.raises(ValueError, match=r"on_fail is no setting; there are: api_key, fields"):
        await run_single(loaded("compute_score", {"model": "m", "on_fail": "raise"}), ROW)
    function = loaded("compute_score", {"model": "m", "on_failure": "raise"})
    with pytest.raises(ValueError, match=r"no 'prompt' to score; there is: .*question"):
        await run_single(function, {**ROW, "extra_info": {"question": "q"}})


def test_it_can_be_called_elsewhere(told: Any, assay_url: str, elsewhere: Any) -> None:
    told(ASSAY_URL=assay_url, ASSAY_REWARD_MODEL="reference", ASSAY_REWARD_ON_FAILURE="raise")
    module = importlib.import_module("assay_client.trainers.verl")
    assert elsewhere(module.compute_score, **ROW) == {"score": pytest.approx(TRUTH)}
    assert elsewhere(module.compute_score_sync, **ROW) == {"score": pytest.approx(TRUTH)}
