"""ms-swift: a reward of `--external_plugins`. Read from ms-swift 4.6.0.

    # plugin.py: --external_plugins plugin.py --reward_funcs assay
    from swift.rewards import orms
    from assay_client.trainers.ms_swift import Reward

    orms["assay"] = Reward

It is told by the environment (`ASSAY_URL`, `ASSAY_REWARD_MODEL`, `ASSAY_REWARD_ON_FAILURE`, …), or
by `functools.partial(Reward, model="code@2", on_failure="skip")`.

ms-swift makes NaN of None, sums over the reward functions without it, and so counts a completion
without any reward as **0** in its group: `none` is refused. With `skip` all completions of the
prompt get None, so that none is compared with another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from assay_client.trainers._items import group_name, turn, whole_groups
from assay_client.trainers._rewards import AsyncReward as _AsyncReward
from assay_client.trainers._rewards import Reward as _Reward
from assay_client.trainers._rewards import SyncReward

_REFUSED = {
    "none": "ms-swift counts a completion without any reward as 0 among those of its prompt. "
    "Choose 'raise', or 'skip', which leaves all of them out"
}


class Reward(SyncReward):
    """An ORM.

    Args:
        args: ms-swift's own; `num_generations` is read of them.
        model: as for `Settings`.
        **settings: as for `Settings`.
    """

    refused: ClassVar[Mapping[str, str]] = _REFUSED

    def __init__(self, args: Any = None, *, model: str | None = None, **settings: Any) -> None:
        super().__init__(model, **settings)
        self.num_generations: int | None = getattr(args, "num_generations", None)

    def __call__(self, completions: Sequence[str], **columns: Sequence[Any]) -> list[float | None]:
        """One reward for each completion.

        Args:
            completions: the last message of each conversation.
            **columns: those of the rows; `messages` holds the conversations.

        Raises:
            AssayError: the policy says so, or the set-up is at fault.
            ValueError: `skip`, and a group that is not whole here.
        """
        items = _items(self, completions, columns)
        return _finish(self, self.num_generations, items, self.scores(items, _step(columns)))


class AsyncReward(_AsyncReward):
    """As `Reward`, awaited, so that several rewards are asked at once."""

    refused: ClassVar[Mapping[str, str]] = _REFUSED

    def __init__(self, args: Any = None, *, model: str | None = None, **settings: Any) -> None:
        super().__init__(model, **settings)
        self.num_generations: int | None = getattr(args, "num_generations", None)

    async def __call__(
        self, completions: Sequence[str], **columns: Sequence[Any]
    ) -> list[float | None]:
        """As `Reward`."""
        items = _items(self, completions, columns)
        scores = await self.scores(items, _step(columns))
        return _finish(self, self.num_generations, items, scores)


def _items(
    reward: _Reward, completions: Sequence[str], columns: Mapping[str, Sequence[Any]]
) -> list[dict[str, Any]]:
    listed = {
        name: values
        for name, values in columns.items()
        if isinstance(values, list) and len(values) == len(completions)
    }
    items = []
    for place, completion in enumerate(completions):
        own = {name: values[place] for name, values in listed.items()}
        before = list(own.get("messages") or [])[:-1]
        items.append(reward.item({**own, **turn(before, completion)}, group_name(before)))
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
    return whole_groups(scores, groups)


def _step(columns: Mapping[str, Any]) -> Any:
    return getattr(columns.get("trainer_state"), "global_step", None)
