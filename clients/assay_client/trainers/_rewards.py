"""What all trainers' rewards do alike: ask, count what failed, and keep to the policy."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NoReturn, TypeVar, cast

from assay_client.async_client import AsyncClient
from assay_client.client import Client
from assay_client.errors import APIStatusError, AssayError, ItemFailedError
from assay_client.trainers._counts import Failures
from assay_client.trainers._items import build_item
from assay_client.trainers._settings import DEFAULT_FIELDS, Settings, from_environment
from assay_client.types import ScoreReply

_LOG = logging.getLogger("assay_client.trainers")

# Mistakes of the set-up: they would fail every item of the run, so no policy hides them.
_OF_THE_SET_UP = frozenset({400, 401, 403, 404, 422})


def only_raise(why: str) -> Mapping[str, str]:
    """The policies that are refused where a trainer has no place for a missing reward."""
    return dict.fromkeys(("none", "skip"), f"{why}. Choose 'raise'")


class Reward:
    """The base of all rewards. Its arguments are those of `Settings`.

    Attributes:
        settings: as they hold.
        failures: what could not be scored, in this process.
    """

    refused: ClassVar[Mapping[str, str]] = {}  # policies that the trainer cannot bear, and why
    fields: ClassVar[Mapping[str, str]] = DEFAULT_FIELDS
    defaults: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, model: str | None = None, **settings: Any) -> None:
        self.settings = from_environment(self.defaults, model=model, **settings)
        reason = self.refused.get(self.settings.on_failure)
        if reason is not None:
            raise ValueError(f"on_failure={self.settings.on_failure!r} is refused here: {reason}")
        self.failures = Failures()
        self.__name__ = f"assay_{self.settings.model.replace('@', '_v').replace('-', '_')}"

    def item(self, sources: Mapping[str, Any], group: str | None = None) -> dict[str, Any]:
        """The item that is sent for one sample.

        Raises:
            ValueError: a source is missing.
        """
        fields = self.settings.fields
        item = build_item(sources, self.fields if fields is None else fields)
        return item if group is None else {**item, "group": group}

    def judge(self, outcome: ScoreReply | AssayError, count: int) -> list[float | None]:
        """The scores by the policy, and what failed counted.

        Raises:
            AssayError: the policy says so, or the set-up is at fault.
        """
        reply = outcome.reply if isinstance(outcome, ItemFailedError) else outcome
        if isinstance(reply, AssayError):
            self._count(0, [_reason(reply)] * count, 0)
            if self.settings.on_failure == "raise" or _is_of_the_set_up(reply):
                self.give_up(reply)
            return [None] * count
        reasons = [one.error.code for one in reply.results if one.error is not None]
        substituted = sum("substituted" in one.flags for one in reply.results)
        self._count(count - len(reasons), reasons, substituted)
        if isinstance(outcome, AssayError) and self.settings.on_failure == "raise":
            self.give_up(outcome)
        return self.values(reply)

    def values(self, reply: ScoreReply) -> list[float | None]:
        """What the trainer gets for each result; None where there is no score."""
        return reply.scores

    def give_up(self, error: AssayError) -> NoReturn:
        """How this trainer is told that there is no score."""
        raise error

    def _count(self, scored: int, reasons: Sequence[str], substituted: int) -> None:
        self.failures.add(scored, reasons, substituted)
        if reasons:
            named = ", ".join(sorted(set(reasons)))
            count = len(reasons) + scored
            _LOG.warning("%d of %d items could not be scored: %s", len(reasons), count, named)


class SyncReward(Reward):
    """A reward for code that waits."""

    def __init__(self, model: str | None = None, **settings: Any) -> None:
        super().__init__(model, **settings)
        self._client = Client(**_of_the_client(self.settings))

    def scores(self, items: Sequence[Mapping[str, Any]], step: Any = None) -> list[float | None]:
        """One score for each item, by the policy.

        Raises:
            AssayError: the policy says so, or the set-up is at fault.
        """
        return self.judge(self.ask(items, step), len(items))

    def ask(self, items: Sequence[Mapping[str, Any]], step: Any) -> ScoreReply | AssayError:
        """What came of the call, for `judge`."""
        chosen = self.settings
        try:
            return self._client.score(
                chosen.model, items, options=chosen.options, run=chosen.run_at(step)
            )
        except AssayError as error:
            return error

    def score_of(self, sources: Mapping[str, Any]) -> float:
        """The score of one sample, where the only policy is to raise.

        Raises:
            AssayError: there is none.
        """
        return cast("float", self.scores([self.item(sources)])[0])

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


class AsyncReward(Reward):
    """A reward that is awaited. Calls that are in the air at once are gathered."""

    def __init__(self, model: str | None = None, **settings: Any) -> None:
        super().__init__(model, **settings)
        self._client = AsyncClient(**_of_the_client(self.settings), gather=True)

    async def scores(
        self, items: Sequence[Mapping[str, Any]], step: Any = None
    ) -> list[float | None]:
        """As `SyncReward.scores`."""
        chosen = self.settings
        outcome: ScoreReply | AssayError
        try:
            outcome = await self._client.score(
                chosen.model, items, options=chosen.options, run=chosen.run_at(step)
            )
        except AssayError as error:
            outcome = error
        return self.judge(outcome, len(items))

    async def score_of(self, sources: Mapping[str, Any]) -> float:
        """As `SyncReward.score_of`."""
        return cast("float", (await self.scores([self.item(sources)]))[0])

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()


R = TypeVar("R", bound=Reward)

# Rewards of functions that a trainer finds by their path: it has no place to keep an object.
_MADE: dict[tuple[type[Reward], Settings], Reward] = {}


def reward_of(kind: type[R], **given: Any) -> R:
    """The reward of this kind with these settings: one in each process, made when first asked for.

    Raises:
        ValueError: as `Settings`.
    """
    settings = from_environment(kind.defaults, **given)
    made = _MADE.get((kind, settings))
    if made is None:
        made = _MADE.setdefault((kind, settings), kind(**vars(settings)))
    return cast("R", made)


def failures() -> list[tuple[Settings, Failures]]:
    """What the functions that are found by their path could not score, in this process."""
    return [(settings, made.failures) for (_, settings), made in _MADE.items()]


def _of_the_client(settings: Settings) -> dict[str, Any]:
    return {
        "base_url": settings.url,
        "api_key": settings.api_key,
        "timeout": settings.timeout,
        "max_retries": settings.max_retries,
    }


def _reason(error: AssayError) -> str:
    return error.code if isinstance(error, APIStatusError) else type(error).__name__


def _is_of_the_set_up(error: AssayError) -> bool:
    return isinstance(error, APIStatusError) and error.status in _OF_THE_SET_UP
