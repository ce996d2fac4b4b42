"""Shares, which bound what the requests of one API key's name take of the server."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from assay.errors import RateLimited
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

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._balances: dict[str, _Balance] = {}

    @contextmanager
    def admitted(self, caller: Caller) -> Iterator[None]:
        """Count a running request.

        Raises:
            RateLimited: the share is used up.
        """
        balance = self._balance(caller)
        share = caller.share
        if share.rate is not None and balance.tokens <= 0:
            raise RateLimited(
                f"the key {caller.name} has used its {share.rate:g} tokens a second",
                retry_after=(1 - balance.tokens) / share.rate,
            )
        if share.concurrency is not None and balance.running >= share.concurrency:
            raise RateLimited(
                f"the key {caller.name} has {balance.running} requests running, its limit",
                retry_after=RETRY_SECONDS,
            )
        balance.running += 1
        try:
            yield
        finally:
            balance.running -= 1

    def charge(self, caller: Caller, tokens: int) -> None:
        """Charge a running request for its tokens."""
        if caller.share.rate is not None:
            self._balance(caller).tokens -= tokens

    def _balance(self, caller: Caller) -> _Balance:
        now, rate = self._clock(), caller.share.rate or 0.0
        full = rate * BURST_SECONDS
        balance = self._balances.get(caller.name)
        if balance is None:
            balance = self._balances[caller.name] = _Balance(full, now)
        balance.tokens = min(full, balance.tokens + rate * (now - balance.updated))
        balance.updated = now
        return balance
