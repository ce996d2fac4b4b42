"""TRL: GRPOTrainer, RLOOTrainer, AsyncGRPOTrainer.

Checked against the source of TRL 1.16.0.

    from assay_client.trainers.trl import Reward

    trainer = GRPOTrainer(reward_funcs=[Reward("code@2", on_failure="none")], ...)

TRL supports None: it becomes NaN, and a completion for which no function has a score gets the
advantage 0 and stays out of its group's baseline. That holds from TRL 1.6 on; before, such a
completion counts as 0, so `none` and `skip` are refused if an older TRL is installed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import metadata
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

LogMetric = Callable[[str, float], object]

_MIN_VERSION_FOR_NONE = (1, 6)
_MIN_VERSION_FOR_ASYNC = (1, 14)


class Reward(SyncReward):
    """A reward function for `reward_funcs`.

    `none`: the completion has no reward of this model. `skip`: neither have the others of its
    prompt, so that no group is compared in parts. The step is that of `trainer_state`. The share of
    completions without a score is logged as `assay/failed`.

    Args:
        model: as for `Settings`.
        **settings: as for `Settings`.

    Raises:
        ValueError: as `Settings`, or `fields` lacks one of `required_fields`.
    """

    required_fields: ClassVar[tuple[str, ...]] = ()

    def __init__(self, model: str | None = None, **settings: Any) -> None:
        super().__init__(model, **settings)
        _check_version(self)
        missing = set(self.required_fields) - set(self.settings.fields or self.fields)
        if missing:
            raise ValueError(f"fields must also say what `{min(missing)}` is taken from")

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any
    ) -> list[float | None]:
        """Return one reward for each completion; None for each that has none.

        Args:
            prompts: texts, or conversations.
            completions: texts, or the messages that answer.
            **columns: the columns of the data set, and TRL's `trainer_state` and
                `log_metric`.

        Raises:
            AssayError: the policy is to raise, or the configuration is wrong.
        """
        items = build_items(self, prompts, completions, columns)
        return finish(self, items, self.scores(items, current_step(columns)), columns)


class AsyncReward(_AsyncReward):
    """An asynchronous `Reward`, so that several rewards are requested concurrently.

    It needs TRL 1.14: older releases do not recognise an asynchronous object.
    """

    def __init__(self, model: str | None = None, **settings: Any) -> None:
        super().__init__(model, **settings)
        _check_version(self)
        version = _installed_version()
        if version is not None and _version_parts(version) < _MIN_VERSION_FOR_ASYNC:
            raise ValueError(f"TRL {version} does not await an object: use Reward, or TRL 1.14")

    async def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any
    ) -> list[float | None]:
        """See `Reward.__call__`."""
        items = build_items(self, prompts, completions, columns)
        return finish(self, items, await self.scores(items, current_step(columns)), columns)


def build_items(
    reward: _Reward, prompts: Sequence[Any], completions: Sequence[Any], columns: Any
) -> list[dict[str, Any]]:
    """Build one item for each completion, with its prompt as group; `columns` are sources too.

    Raises:
        ValueError: a source is missing.
    """
    items = []
    for row, (prompt, completion) in enumerate(zip_strict(prompts, completions)):
        values = row_values(columns, len(prompts), row)
        sources = {**values, **prompt_and_response(prompt, completion)}
        items.append(reward.item(sources, group_name(prompt)))
    return items


def finish(
    reward: _Reward, items: Sequence[Any], scores: list[float | None], columns: Any
) -> list[float | None]:
    """Log the share without a score, and return the scores as the policy requires."""
    log: LogMetric | None = columns.get("log_metric")
    if log is not None:
        log("assay/failed", scores.count(None) / len(scores))
    if reward.settings.on_failure == "skip":
        return drop_incomplete_groups(scores, [item["group"] for item in items])
    return scores


def current_step(columns: Any) -> Any:
    """Return the trainer's step; None if it passes no state."""
    return getattr(columns.get("trainer_state"), "global_step", None)


def _check_version(reward: _Reward) -> None:
    version = None if reward.settings.on_failure == "raise" else _installed_version()
    if version is not None and _version_parts(version) < _MIN_VERSION_FOR_NONE:
        raise ValueError(
            f"on_failure={reward.settings.on_failure!r} is refused here: TRL {version} counts a "
            "completion without a reward as 0. Choose 'raise', or install TRL 1.6 or later"
        )


def _installed_version() -> str | None:
    try:
        return metadata.version("trl")
    except metadata.PackageNotFoundError:
        return None


def _version_parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
