"""slime's custom rewards, called as slime's `rollout` does (rm_hub at 0b420f1e, sglang_rollout at
0044b40d)."""

import asyncio
import importlib
import math
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from assay_client import ItemFailedError
from assay_client.trainers import _rewards

TOO_LONG = "word " * 5000
EXPECTED = math.log(3 / 2)


@dataclass
class Sample:
    prompt: Any = "one two three"
    response: str = "three two"
    label: Any = None
    reward: Any = None
    metadata: dict[str, Any] = field(default_factory=dict)


def arguments(**values: Any) -> SimpleNamespace:
    names = ("custom_rm_path", "reward_key", "dynamic_sampling_filter_path")
    return SimpleNamespace(**{**dict.fromkeys(names), **values})


def load_function(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


CUSTOM = "assay_client.trainers.slime.custom_rm"
BATCHED = "assay_client.trainers.slime.batched_custom_rm"
FILTER = "assay_client.trainers.slime.keep_scored"


@pytest.fixture
async def configure(set_environment: Any, assay_url: str) -> Any:
    set_environment(
        ASSAY_URL=assay_url, ASSAY_REWARD_MODEL="reference", ASSAY_REWARD_ON_FAILURE="raise"
    )
    yield set_environment
    for reward in _rewards.SHARED_REWARDS.values():
        assert isinstance(reward, _rewards.AsyncReward)
        await reward.aclose()


async def test_custom_rm_scores_a_sample(configure: Any) -> None:
    args = arguments(custom_rm_path=CUSTOM)
    assert await load_function(args.custom_rm_path)(args, Sample()) == pytest.approx(EXPECTED)


async def test_batched_custom_rm_scores_a_group(configure: Any) -> None:
    args = arguments(custom_rm_path=BATCHED)
    samples = [Sample(response="one"), Sample(), Sample(response="one two three")]
    result = await load_function(BATCHED)(args, samples)
    assert result == pytest.approx([math.log(2 / 3), EXPECTED, math.log(4)])
    assert await load_function(CUSTOM)(args, samples) == result


async def test_reward_key_names_the_reward(configure: Any) -> None:
    result = await load_function(CUSTOM)(arguments(reward_key="score"), Sample())
    assert result == {"score": pytest.approx(EXPECTED)}


async def test_fields_may_name_label_and_metadata(configure: Any, server: Any) -> None:
    configure(ASSAY_URL=server.url, ASSAY_REWARD_FIELDS="prompt=prompt,tests=tests,value=level")
    chat = [{"role": "user", "content": "one"}]
    sample = Sample(prompt=chat, label={"tests": ["t"]}, metadata={"level": 4})
    assert await load_function(CUSTOM)(arguments(), sample) == 4.0
    assert server.received[0].body["items"] == [{"prompt": chat, "tests": ["t"], "value": 4}]


async def test_raise_raises_the_items_error(configure: Any) -> None:
    with pytest.raises(ItemFailedError):
        await load_function(CUSTOM)(arguments(), Sample(response=TOO_LONG))


async def test_none_is_refused(configure: Any) -> None:
    configure(ASSAY_REWARD_ON_FAILURE="none")
    with pytest.raises(ValueError, match=r"as numbers. Choose 'raise', or 'skip'"):
        await load_function(CUSTOM)(arguments(), Sample())


async def test_skip_drops_the_group_by_slimes_filter(configure: Any) -> None:
    configure(ASSAY_REWARD_ON_FAILURE="skip")
    args = arguments(dynamic_sampling_filter_path=FILTER)
    groups = [[Sample(), Sample()], [Sample(), Sample(response=TOO_LONG)]]
    for sample in (sample for group in groups for sample in group):
        sample.reward = await load_function(CUSTOM)(args, sample)
    keep = load_function(args.dynamic_sampling_filter_path)
    assert [keep(args, group) for group in groups] == [True, False]
    assert keep(args, [groups[0], groups[1]]) is False  # nested groups
    assert groups[1][0].reward == pytest.approx(EXPECTED)


async def test_skip_without_the_filter_is_refused(configure: Any) -> None:
    configure(ASSAY_REWARD_ON_FAILURE="skip")
    with pytest.raises(ValueError, match=f"--dynamic-sampling-filter-path {FILTER}"):
        await load_function(CUSTOM)(arguments(), Sample())


async def test_concurrent_samples_are_sent_together(configure: Any, server: Any) -> None:
    configure(ASSAY_URL=server.url, ASSAY_REWARD_FIELDS="prompt=prompt,value=i")
    samples = [Sample(metadata={"i": i}) for i in range(200)]
    result = await asyncio.gather(
        *(load_function(CUSTOM)(arguments(), sample) for sample in samples)
    )
    assert result == [float(i) for i in range(200)]
    assert len(server.received) == 4


def test_the_functions_can_be_pickled(
    set_environment: Any, assay_url: str, in_new_process: Any
) -> None:
    set_environment(
        ASSAY_URL=assay_url, ASSAY_REWARD_MODEL="reference", ASSAY_REWARD_ON_FAILURE="raise"
    )
    sample = SimpleNamespace(**vars(Sample()))
    assert in_new_process(load_function(CUSTOM), arguments(), sample) == pytest.approx(EXPECTED)
    assert in_new_process(load_function(BATCHED), arguments(), [sample]) == pytest.approx(
        [EXPECTED]
    )
