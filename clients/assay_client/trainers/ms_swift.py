"""ms-swift: a reward of `--external_plugins`.

Checked against the source of ms-swift 4.6.0.

    # plugin.py: --external_plugins plugin.py --reward_funcs assay
    from swift.rewards import orms
    from assay_client.trainers.ms_swift import Reward

    orms["assay"] = Reward

It is configured by environment variables (`ASSAY_URL`, `ASSAY_REWARD_MODEL`,
`ASSAY_REWARD_ON_FAILURE`, …), or by `functools.partial(Reward, model="code@2", on_failure="skip")`.

ms-swift converts None to NaN and leaves NaN out of the sum over the reward functions. So it counts
a completion without any reward as **0** in its group: `none` is refused. With `skip`
all completions of the prompt get None, so that no completion is compared with another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from assay_client._transport.zip import zip_strict
from assay_client.trainers._items import (
    drop_incomplete_groups,
    group_name,
    prompt_and_response,
    row_values,
)
from assay_client.trainers._rewards import AsyncReward as _AsyncReward
from assay_client.trainers._rewards import Reward as _Reward
from assay_client.trainers._rewards import SyncReward

_REFUSED = {
    "none": "ms-swift counts a completion without any reward as 0 among those of its prompt. "
    "Choose 'raise', or 'skip', which leaves all of them out"
}


class Reward(SyncReward):
    """An outcome reward model (ORM) of ms-swift.

    Args:
        args: ms-swift's own; only `num_generations` is used.
        model: as for `Settings`.
        **settings: as for `Settings`.
    """

    unsupported_on_failure: ClassVar[Mapping[str, str]] = _REFUSED

    def __init__(self, args: Any = None, *, model: str | None = None, **settings: Any) -> None:
        super().__init__(model, **settings)
        self.num_generations: int | None = getattr(args, "num_generations", None)

    def __call__(self, completions: Sequence[str], **columns: Sequence[Any]) -> list[float | None]:
        """Return one reward for each completion.

        Args:
            completions: the last message of each conversation.
            **columns: those of the rows; `messages` holds the conversations.

        Raises:
            AssayError: the policy is to raise, or the configuration is wrong.
            ValueError: the policy is `skip`, and a group is incomplete in this process.
        """
        items = _items(self, completions, columns)
        return _finish(self, self.num_generations, items, self.scores(items, _step(columns)))


class AsyncReward(_AsyncReward):
    """An asynchronous `Reward`, so that several rewards are requested concurrently."""

    unsupported_on_failure: ClassVar[Mapping[str, str]] = _REFUSED

    def __init__(self, args: Any = None, *, model: str | None = None, **settings: Any) -> None:
        super().__init__(model, **settings)
        self.num_generations: int | None = getattr(args, "num_generations", None)

    async def __call__(
        self, completions: Sequence[str], **columns: Sequence[Any]
    ) -> list[float | None]:
        """See `Reward.__call__`."""
        items = _items(self, completions, columns)
        scores = await self.scores(items, _step(columns))
        return _finish(self, self.num_generations, items, scores)


def _items(
    reward: _Reward, completions: Sequence[str], columns: Mapping[str, Sequence[Any]]
) -> list[dict[str, Any]]:
    items = []
    for row, (completion,) in enumerate(zip_strict(completions)):
        values = row_values(columns, len(completions), row)
        prompt = list(values.get("messages") or [])[:-1]
        sources = {**values, **prompt_and_response(prompt, completion)}
        items.append(reward.item(sources, group_name(prompt)))
    return items


def _finish(
    reward: _Reward, size: int | None, items: Sequence[Any], scores: list[float | None]
) -> list[float | None]:
    if reward.settings.on_failure != "skip" or None not in scores:
        return scores
    groups = [item["group"] for item in items]
    if size is not None and any(count % size for count in Counter(groups).values()):
        raise ValueError(
            "on_failure='skip' cannot leave a group out, as not all of it is on this rank: let "
            "per_device_train_batch_size be a multiple of num_generations, or choose 'raise'"
        )
    return drop_incomplete_groups(scores, groups)


def _step(columns: Mapping[str, Any]) -> Any:
    return getattr(columns.get("trainer_state"), "global_step", None)
