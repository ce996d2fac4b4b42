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
TRUTH = math.log(3 / 2)


@dataclass
class Sample:
    prompt: Any = "one two three"
    response: str = "three two"
    label: Any = None
    reward: Any = None
    metadata: dict[str, Any] = field(default_factory=dict)


def arguments(**chosen: Any) -> SimpleNamespace:
    names = ("custom_rm_path", "reward_key", "dynamic_sampling_filter_path")
    return SimpleNamespace(**{**dict.fromkeys(names), **chosen})


def load_function(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


CUSTOM = "assay_client.trainers.slime.custom_rm"
BATCHED = "assay_client.trainers.slime.batched_custom_rm"
FILTER = "assay_client.trainers.slime.keep_scored"


@pytest.fixture
async def set_up(told: Any, assay_url: str) -> Any:
    told(ASSAY_URL=assay_url, ASSAY_REWARD_MODEL="reference", ASSAY_REWARD_ON_FAILURE="raise")
    yield told
    for reward in _rewards._MADE.values():
        assert isinstance(reward, _rewards.AsyncReward)
        await reward.aclose()


async def test_one_sample(set_up: Any) -> None:
    args = arguments(custom_rm_path=CUSTOM)
    assert await load_function(args.custom_rm_path)(args, Sample()) == pytest.approx(TRUTH)


async def test_a_group(set_up: Any) -> None:
    args = arguments(custom_rm_path=BATCHED)
    samples = [Sample(response="one"), Sample(), Sample(response="one two three")]
    found = await load_function(BATCHED)(args, samples)
    assert found == pytest.approx([math.log(2 / 3), TRUTH, math.log(4)])
    assert await load_function(CUSTOM)(args, samples) == found


async def test_a_reward_may_have_a_name(set_up: Any) -> None:
    found = await load_function(CUSTOM)(arguments(reward_key="score"), Sample())
    assert found == {"score": pytest.approx(TRUTH)}


async def test_label_and_metadata_can_be_named(set_up: Any, server: Any) -> None:
    set_up(ASSAY_URL=server.url, ASSAY_REWARD_FIELDS="prompt=prompt,tests=tests,value=level")
    chat = [{"role": "user", "content": "one"}]
    sample = Sample(prompt=chat, label={"tests": ["t"]}, metadata={"level": 4})
    assert await load_function(CUSTOM)(arguments(), sample) == 4.0
    assert server.seen[0].body["items"] == [{"prompt": chat, "tests": ["t"], "value": 4}]


async def test_raise(set_up: Any) -> None:
    with pytest.raises(ItemFailedError):
        await load_function(CUSTOM)(arguments(), Sample(response=TOO_LONG))


async def test_none_is_refused(set_up: Any) -> None:
    set_up(ASSAY_REWARD_ON_FAILURE="none")
    with pytest.raises(ValueError, match=r"as numbers. Choose 'raise', or 'skip'"):
        await load_function(CUSTOM)(arguments(), Sample())


async def test_skip_drops_the_group_by_slimes_own_filter(set_up: Any) -> None:
    set_up(ASSAY_REWARD_ON_FAILURE="skip")
    args = arguments(dynamic_sampling_filter_path=FILTER)
    groups = [[Sample(), Sample()], [Sample(), Sample(response=TOO_LONG)]]
    for sample in (sample for group in groups for sample in group):
        sample.reward = await load_function(CUSTOM)(args, sample)
    keep = load_function(args.dynamic_sampling_filter_path)
    assert [keep(args, group) for group in groups] == [True, False]
    assert keep(args, [groups[0], groups[1]]) is False  # samples that fanned out into several
    assert groups[1][0].reward == pytest.approx(TRUTH)


async def test_skip_without_the_filter_is_refused(set_up: Any) -> None:
    set_up(ASSAY_REWARD_ON_FAILURE="skip")
    with pytest.raises(ValueError, match=f"--dynamic-sampling-filter-path {FILTER}"):
        await load_function(CUSTOM)(arguments(), Sample())


async def test_samples_in_the_air_travel_together(set_up: Any, server: Any) -> None:
    set_up(ASSAY_URL=server.url, ASSAY_REWARD_FIELDS="prompt=prompt,value=i")
    samples = [Sample(metadata={"i": i}) for i in range(200)]
    found = await asyncio.gather(*(load_function(CUSTOM)(arguments(), one) for one in samples))
    assert found == [float(i) for i in range(200)]
    assert len(server.seen) == 4


def test_it_can_be_called_elsewhere(told: Any, assay_url: str, elsewhere: Any) -> None:
    told(ASSAY_URL=assay_url, ASSAY_REWARD_MODEL="reference", ASSAY_REWARD_ON_FAILURE="raise")
    sample = SimpleNamespace(**vars(Sample()))
    assert elsewhere(load_function(CUSTOM), arguments(), sample) == pytest.approx(TRUTH)
    assert elsewhere(load_function(BATCHED), arguments(), [sample]) == pytest.approx([TRUTH])
