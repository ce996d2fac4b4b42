"""Base of all trainers' rewards: requests, counts of failures, and the policy for them."""

from __future__ import annotations

import asyncio
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

# Mistakes of the configuration: they would fail every item of the run, so they are always raised.
_CONFIGURATION_STATUS_CODES = frozenset({400, 401, 403, 404, 422})


def refuse_all_but_raise(reason: str) -> Mapping[str, str]:
    """Return `unsupported_on_failure` of a trainer that cannot represent a missing reward."""
    return dict.fromkeys(("none", "skip"), f"{reason}. Choose 'raise'")


class Reward:
    """Base class of all rewards. Its arguments are those of `Settings`.

    Attributes:
        unsupported_on_failure: the values of `on_failure` that the trainer does not support, and
            the reasons.
        settings: the settings in effect.
        failures: counts of scored and failed items, in this process.
    """

    unsupported_on_failure: ClassVar[Mapping[str, str]] = {}
    fields: ClassVar[Mapping[str, str]] = DEFAULT_FIELDS
    defaults: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, model: str | None = None, **settings: Any) -> None:
        self.settings = from_environment(self.defaults, model=model, **settings)
        reason = self.unsupported_on_failure.get(self.settings.on_failure)
        if reason is not None:
            raise ValueError(f"on_failure={self.settings.on_failure!r} is refused here: {reason}")
        self.failures = Failures()
        self.__name__ = f"assay_{self.settings.model.replace('@', '_v').replace('-', '_')}"

    def item(self, sources: Mapping[str, Any], group: str | None = None) -> dict[str, Any]:
        """Build the item that is sent for one sample.

        Raises:
            ValueError: a source is missing.
        """
        fields = self.settings.fields
        item = build_item(sources, self.fields if fields is None else fields)
        return item if group is None else {**item, "group": group}

    def apply_policy(self, outcome: ScoreReply | AssayError, count: int) -> list[float | None]:
        """Count the failures of a call, and return its rewards as the policy requires.

        Args:
            outcome: the reply, or the error of the call.
            count: the number of items.

        Raises:
            AssayError: the policy is to raise, or the configuration is wrong.
        """
        reply = outcome.reply if isinstance(outcome, ItemFailedError) else outcome
        if isinstance(reply, AssayError):
            self.record_counts(0, [_failure_reason(reply)] * count)
            if self.settings.on_failure == "raise" or _is_configuration_error(reply):
                self.raise_failure(reply)
            return [None] * count
        reasons = [result.error.code for result in reply.results if result.error is not None]
        substituted = sum("substituted" in result.flags for result in reply.results)
        self.record_counts(count - len(reasons), reasons, substituted)
        if isinstance(outcome, AssayError) and self.settings.on_failure == "raise":
            self.raise_failure(outcome)
        return self.to_rewards(reply)

    def to_rewards(self, reply: ScoreReply) -> list[float | None]:
        """Return the reward of each result; None if there is no score."""
        return reply.scores

    def raise_failure(self, error: AssayError) -> NoReturn:
        """Raise an error that the trainer does not treat as a reward."""
        raise error

    def record_counts(self, scored: int, reasons: Sequence[str], substituted: int = 0) -> None:
        """Count the items of one call, and log the reasons of those that failed."""
        self.failures.add(scored, reasons, substituted)
        if reasons:
            listed = ", ".join(sorted(set(reasons)))
            count = len(reasons) + scored
            _LOG.warning("%d of %d items could not be scored: %s", len(reasons), count, listed)


class SyncReward(Reward):
    """A synchronous reward."""

    def __init__(self, model: str | None = None, **settings: Any) -> None:
        super().__init__(model, **settings)
        self._client = Client(**_client_arguments(self.settings))
        self._is_started = not self.settings.startup_timeout

    def scores(self, items: Sequence[Mapping[str, Any]], step: Any = None) -> list[float | None]:
        """Return one score for each item, by the policy.

        Raises:
            AssayError: the policy is to raise, or the configuration is wrong.
        """
        return self.apply_policy(self.request_scores(items, step), len(items))

    def request_scores(
        self, items: Sequence[Mapping[str, Any]], step: Any
    ) -> ScoreReply | AssayError:
        """Return the reply to a call, or its error, for `apply_policy`."""
        settings = self.settings
        try:
            if not self._is_started:
                self._client.wait_until_ready(settings.startup_timeout)
                self._is_started = True
            return self._client.score(
                settings.model, items, options=settings.options, run=settings.run_at(step)
            )
        except AssayError as error:
            return error

    def score_sample(self, sources: Mapping[str, Any]) -> float:
        """Return the score of one sample, where the only policy is to raise.

        Raises:
            AssayError: there is none.
        """
        return cast("float", self.scores([self.item(sources)])[0])

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


class AsyncReward(Reward):
    """An asynchronous reward. Calls that are in flight at the same time are sent together."""

    def __init__(self, model: str | None = None, **settings: Any) -> None:
        super().__init__(model, **settings)
        self._client = AsyncClient(**_client_arguments(self.settings), gather=True)
        self._is_started = not self.settings.startup_timeout
        self._starting: asyncio.Task[None] | None = None

    async def scores(
        self, items: Sequence[Mapping[str, Any]], step: Any = None
    ) -> list[float | None]:
        """See `SyncReward.scores`."""
        settings = self.settings
        outcome: ScoreReply | AssayError
        try:
            if not self._is_started:
                await self._wait_for_start()
            outcome = await self._client.score(
                settings.model, items, options=settings.options, run=settings.run_at(step)
            )
        except AssayError as error:
            outcome = error
        return self.apply_policy(outcome, len(items))

    async def score_sample(self, sources: Mapping[str, Any]) -> float:
        """See `SyncReward.score_sample`."""
        return cast("float", (await self.scores([self.item(sources)]))[0])

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _wait_for_start(self) -> None:
        """Wait until a server is ready; concurrent calls share one wait."""
        loop = asyncio.get_running_loop()
        starting = self._starting
        if starting is None or starting.get_loop() is not loop:
            seconds = self.settings.startup_timeout
            starting = self._starting = loop.create_task(self._client.wait_until_ready(seconds))
        try:
            # A caller that is cancelled does not end the wait of the others.
            await asyncio.shield(starting)
            self._is_started = True
        finally:
            if starting.done():
                self._starting = None


R = TypeVar("R", bound=Reward)

# Rewards of functions that a trainer loads by their path: it has no place to keep an object.
SHARED_REWARDS: dict[tuple[type[Reward], Settings], Reward] = {}


def shared_reward(kind: type[R], **given: Any) -> R:
    """Return this process's reward of this kind with these settings; make it on first use.

    Raises:
        ValueError: as `Settings`.
    """
    settings = from_environment(kind.defaults, **given)
    reward = SHARED_REWARDS.get((kind, settings))
    if reward is None:
        reward = SHARED_REWARDS.setdefault((kind, settings), kind(**vars(settings)))
    return cast("R", reward)


def failures() -> list[tuple[Settings, Failures]]:
    """Return the counts of functions that are loaded by their path, in this process."""
    return [(settings, reward.failures) for (_, settings), reward in SHARED_REWARDS.items()]


def _client_arguments(settings: Settings) -> dict[str, Any]:
    return {
        "base_url": settings.url,
        "api_key": settings.api_key,
        "timeout": settings.timeout,
        "max_retries": settings.max_retries,
    }


def _failure_reason(error: AssayError) -> str:
    return error.code if isinstance(error, APIStatusError) else type(error).__name__


def _is_configuration_error(error: AssayError) -> bool:
    return isinstance(error, APIStatusError) and error.status_code in _CONFIGURATION_STATUS_CODES
