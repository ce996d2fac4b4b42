"""slime: `--custom-rm-path`.

Checked against the source of slime's `rollout` at 0b420f1e and 0044b40d.

    --custom-rm-path assay_client.trainers.slime.custom_rm

It is configured by environment variables (`ASSAY_URL`, `ASSAY_REWARD_MODEL`,
`ASSAY_REWARD_ON_FAILURE`, …). slime normalises the rewards of a group as numbers, so
`none` is refused. With `skip` a sample without a score gets no reward, and slime's dynamic filter
drops its group and draws another:

    --dynamic-sampling-filter-path assay_client.trainers.slime.keep_scored
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from assay_client.trainers._items import label_fields, prompt_and_response
from assay_client.trainers._rewards import AsyncReward, shared_reward

_FILTER = "keep_scored"


class _Reward(AsyncReward):
    unsupported_on_failure: ClassVar[Mapping[str, str]] = {
        "none": "slime normalises the rewards of a group as numbers. Choose 'raise', or 'skip', "
        "which drops the group"
    }


async def custom_rm(args: Any, sample: Any, **_: Any) -> Any:
    """Return the reward of a sample, or of each of a list of samples.

    Args:
        args: slime's; `reward_key` is the name under which it reads the reward.
        sample: slime's; its label, where it is an object, and its metadata may be named in
            `fields`.
        **_: not read.

    Returns:
        A number; with `reward_key` an object that holds it; None if it could not be scored and the
        policy is `skip`.

    Raises:
        AssayError: there is no score, and the policy is `raise`.
        ValueError: `skip` without the filter that it needs.
    """
    if isinstance(sample, (list, tuple)):
        return await batched_custom_rm(args, sample)
    return (await batched_custom_rm(args, [sample]))[0]


async def batched_custom_rm(args: Any, samples: Sequence[Any], **_: Any) -> list[Any]:
    """Return the reward of each sample of one prompt, for `--group-rm`; see `custom_rm`."""
    reward = shared_reward(_Reward)
    if reward.settings.on_failure == "skip":
        _check_filter(args)
    scores = await reward.scores([reward.item(_sources(sample)) for sample in samples])
    key = getattr(args, "reward_key", None)
    return [score if score is None or not key else {key: score} for score in scores]


def keep_scored(args: Any, samples: Sequence[Any], **_: Any) -> bool:
    """Return whether each sample of a group has a reward; slime drops the group if not."""
    return all(sample.reward is not None for sample in _flat(samples))


def _flat(samples: Sequence[Any]) -> Iterator[Any]:
    for sample in samples:
        if isinstance(sample, (list, tuple)):
            yield from sample
        else:
            yield sample


def _sources(sample: Any) -> dict[str, Any]:
    metadata = sample.metadata if isinstance(sample.metadata, Mapping) else {}
    own = {"label": sample.label, **prompt_and_response(sample.prompt, sample.response)}
    return {**metadata, **label_fields(sample.label), **own}


def _check_filter(args: Any) -> None:
    path = getattr(args, "dynamic_sampling_filter_path", None) or ""
    if not path.endswith(_FILTER):
        raise ValueError(
            "on_failure='skip' needs slime's filter, which drops the group of a sample without a "
            f"reward: --dynamic-sampling-filter-path {__name__}.{_FILTER}, or a function of your "
            f"own that is called {_FILTER} and calls it"
        )
