"""Shares, which bound what the requests of one API key's name take of the server."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from assay.cache.balances import RedisBalances
from assay.errors import RateLimited
from assay.metrics import Metrics
from assay.types import Caller, Clock

BURST_SECONDS = 10.0
"""Tokens are saved up for this long while a key sends nothing."""
RETRY_SECONDS = 1.0


@dataclass(slots=True)
class _Balance:
    """The tokens that a name may still use, when that was computed, and its running requests."""

    tokens: float
    updated: float
    running: int = 0


class Shares:
    """The balances of the names that have a share.

    A request is admitted while its name has tokens left, and is then charged for all its tokens,
    which may leave a debt. So a request of any size is served, and the rate holds on average.

    With balances in Redis, a request is admitted if those of all replicas allow it too. While Redis
    fails, each replica grants the whole share alone.

    Args:
        clock: monotonic seconds.
        metrics: counters of decisions.
        balances: those of all replicas; None if there are none.
    """

    def __init__(
        self, clock: Clock, metrics: Metrics, balances: RedisBalances | None = None
    ) -> None:
        self._clock = clock
        self._shared = balances
        self._own_balances: dict[str, _Balance] = {}
        self._decided = {
            name: metrics.share_decisions.labels(name) for name in ("redis", "own") if balances
        }

    @asynccontextmanager
    async def admitted(self, caller: Caller) -> AsyncIterator[None]:
        """Count a running request.

        Raises:
            RateLimited: the share is used up.
        """
        with self._admitted_here(caller):
            if self._shared is None:
                yield
                return
            standing, lease = await self._shared.admit(caller, _full(caller))
            self._decided["own" if standing is None else "redis"].inc()
            try:
                if standing is not None:
                    _check(caller, standing.tokens, standing.running)
                yield
            finally:
                self._shared.release(caller, lease)

    def charge(self, caller: Caller, tokens: int) -> None:
        """Charge a running request for its tokens."""
        if caller.share.rate is not None:
            self._balance(caller).tokens -= tokens
            if self._shared is not None:
                self._shared.charge(caller, _full(caller), tokens)

    @contextmanager
    def _admitted_here(self, caller: Caller) -> Iterator[None]:
        """Count a request that runs here. What one replica refuses, all together would."""
        balance = self._balance(caller)
        _check(caller, balance.tokens, balance.running)
        balance.running += 1
        try:
            yield
        finally:
            balance.running -= 1

    def _balance(self, caller: Caller) -> _Balance:
        now, full = self._clock(), _full(caller)
        balance = self._own_balances.get(caller.name)
        if balance is None:
            balance = self._own_balances[caller.name] = _Balance(full, now)
        gained = (caller.share.rate or 0.0) * (now - balance.updated)
        balance.tokens = min(full, balance.tokens + gained)
        balance.updated = now
        return balance


def _full(caller: Caller) -> float:
    """Return the tokens that a name can save up."""
    return (caller.share.rate or 0.0) * BURST_SECONDS


def _check(caller: Caller, tokens: float, running: int) -> None:
    """Check the share of a request's name before it runs.

    Raises:
        RateLimited: the share is used up.
    """
    share = caller.share
    if share.rate is not None and tokens <= 0:
        raise RateLimited(
            f"the key {caller.name} has used its {share.rate:g} tokens a second",
            retry_after=(1 - tokens) / share.rate,
        )
    if share.concurrency is not None and running >= share.concurrency:
        raise RateLimited(
            f"the key {caller.name} has {running} requests running, its limit",
            retry_after=RETRY_SECONDS,
        )
