"""TRL: GRPOTrainer, RLOOTrainer, AsyncGRPOTrainer. Read from TRL 1.16.0.

    from assay_client.trainers.trl import Reward

    trainer = GRPOTrainer(reward_funcs=[Reward("code@2", on_failure="none")], ...)

None is first class in TRL: it becomes NaN, and a completion for which no function has a score gets
the advantage 0 and stays out of its group's baseline. That holds from TRL 1.6 on; before, such a
completion counts as 0, so `none` and `skip` are refused where an older TRL is installed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any, ClassVar

from assay_client._transport.zip import zipped
from assay_client.trainers._items import group_name, turn, whole_groups
from assay_client.trainers._rewards import AsyncReward as _AsyncReward
from assay_client.trainers._rewards import Reward as _Reward
from assay_client.trainers._rewards import SyncReward

LogMetric = Callable[[str, float], object]

_BEARS_NONE = (1, 6)
_SEES_ASYNC = (1, 14)


class Reward(SyncReward):
    """A reward function for `reward_funcs`.

    `none`: the completion has no reward of this model. `skip`: neither have the others of its
    prompt, so that no group is compared in parts. The step is that of `trainer_state`. The share of
    completions without a score is logged as `assay/failed`.

    Args:
        model: as for `Settings`.
        **settings: as for `Settings`.

    Raises:
        ValueError: as `Settings`, or `fields` leaves out what the reward needs (`needed`).
    """

    needed: ClassVar[tuple[str, ...]] = ()

    def __init__(self, model: str | None = None, **settings: Any) -> None:
        super().__init__(model, **settings)
        _check_version(self)
        missing = set(self.needed) - set(self.settings.fields or self.fields)
        if missing:
            raise ValueError(f"fields must also say what `{min(missing)}` is taken from")

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any
    ) -> list[float | None]:
        """One reward for each completion, None where there is none.

        Args:
            prompts: texts, or conversations.
            completions: texts, or the messages that answer.
            **columns: what TRL passes along: the data set's columns, `trainer_state`, `log_metric`.

        Raises:
            AssayError: the policy says so, or the set-up is at fault.
        """
        items = items_of(self, prompts, completions, columns)
        return finish(self, items, self.scores(items, step_of(columns)), columns)


class AsyncReward(_AsyncReward):
    """As `Reward`, awaited, so that several rewards are asked at once. It needs TRL 1.14: before,
    an object is not seen to be asynchronous."""

    def __init__(self, model: str | None = None, **settings: Any) -> None:
        super().__init__(model, **settings)
        _check_version(self)
        version = _installed()
        if version is not None and _parts(version) < _SEES_ASYNC:
            raise ValueError(f"TRL {version} does not await an object: use Reward, or TRL 1.14")

    async def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any
    ) -> list[float | None]:
        """As `Reward`."""
        items = items_of(self, prompts, completions, columns)
        return finish(self, items, await self.scores(items, step_of(columns)), columns)


def items_of(
    reward: _Reward, prompts: Sequence[Any], completions: Sequence[Any], columns: Any
) -> list[dict[str, Any]]:
    """One item for each completion, named by its prompt's group; `columns` are sources too.

    Raises:
        ValueError: a source is missing.
    """
    listed = {
        name: values
        for name, values in columns.items()
        if isinstance(values, list) and len(values) == len(prompts)
    }
    items = []
    for place, (prompt, completion) in enumerate(zipped(prompts, completions)):
        own = {name: values[place] for name, values in listed.items()}
        items.append(reward.item({**own, **turn(prompt, completion)}, group_name(prompt)))
    return items


def finish(
    reward: _Reward, items: Sequence[Any], scores: list[float | None], columns: Any
) -> list[float | None]:
    """What TRL is given: the share without a score is logged, and by the policy whole groups are
    left out."""
    log: LogMetric | None = columns.get("log_metric")
    if log is not None:
        log("assay/failed", scores.count(None) / len(scores))
    if reward.settings.on_failure == "skip":
        return whole_groups(scores, [item["group"] for item in items])
    return scores


def step_of(columns: Any) -> Any:
    """The step of the trainer, None where it passes no state."""
    return getattr(columns.get("trainer_state"), "global_step", None)


def _check_version(reward: _Reward) -> None:
    version = None if reward.settings.on_failure == "raise" else _installed()
    if version is not None and _parts(version) < _BEARS_NONE:
        raise ValueError(
            f"on_failure={reward.settings.on_failure!r} is refused here: TRL {version} counts a "
            "completion without a reward as 0. Choose 'raise', or install TRL 1.6 or later"
        )


def _installed() -> str | None:
    try:
        return metadata.version("trl")
    except metadata.PackageNotFoundError:
        return None


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
