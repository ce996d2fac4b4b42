"""RedisBalances: what the requests of one API key's name have used, of all replicas together."""

import asyncio
import math
import secrets
from collections import defaultdict
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import dataclass
from typing import cast

from assay.cache.redis_client import PREFIX, RedisClient
from assay.types import Caller

TOKENS, RUNNING = b"assay tokens", b"assay running"
"""Purposes of derived keys."""
TOKENS_OF, RUNNING_OF = PREFIX + b"tokens:", PREFIX + b"running:"
LEASE_BYTES = 16
LEASE_SECONDS = 15.0
"""The running requests of a replica that was killed count for at most this long."""
RENEW_SECONDS = 5.0

# KEYS[1]: the tokens. ARGV: tokens a second, their maximum, and those to charge. The time is
# that of Redis, one for all replicas; if it was set back, no tokens are added.
CHARGE = """
local time = redis.call('TIME')
local now, rate, full = time[1] + time[2] / 1e6, tonumber(ARGV[1]), tonumber(ARGV[2])
local tokens = full
if rate > 0 then
  local stored = redis.call('HMGET', KEYS[1], 'tokens', 'updated')
  local past, updated = tonumber(stored[1] or ''), tonumber(stored[2] or '')
  if past and updated then
    tokens = math.min(full, past + rate * math.max(0, now - updated))
  end
  tokens = tokens - tonumber(ARGV[3])
  redis.call('HSET', KEYS[1], 'tokens', string.format('%.17g', tokens),
    'updated', string.format('%.17g', now))
  redis.call('PEXPIRE', KEYS[1], math.min(1e12, math.ceil(1000 * (full - tokens) / rate) + 1000))
end
"""
# KEYS[2]: the leases of running requests by the time of their end. ARGV[4] to [6]: their maximum,
# milliseconds of a lease, and its name.
ADMIT = (
    CHARGE
    + """
local limit, running = tonumber(ARGV[4]), 0
if limit > 0 then
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
  running = redis.call('ZCARD', KEYS[2])
  if running < limit and tokens > 0 then
    redis.call('ZADD', KEYS[2], now + ARGV[5] / 1000, ARGV[6])
    redis.call('PEXPIRE', KEYS[2], ARGV[5])
  end
end
return {string.format('%.17g', tokens), running}
"""
)
# KEYS[1]: the leases. ARGV: milliseconds of a lease, then the names of those to renew.
RENEW = """
local time = redis.call('TIME')
for i = 2, #ARGV do
  redis.call('ZADD', KEYS[1], 'XX', time[1] + time[2] / 1e6 + ARGV[1] / 1000, ARGV[i])
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
"""


@dataclass(frozen=True, slots=True)
class Standing:
    """The tokens that a name may still use, and its requests that run, when it asked for one."""

    tokens: float
    running: int


class RedisBalances:
    """The balances and leases of the names that have a share. No method raises.

    Args:
        client: the client of the Redis.
    """

    def __init__(self, client: RedisClient) -> None:
        self._client = client
        self._leases: defaultdict[str, set[bytes]] = defaultdict(set)
        self._timer: asyncio.TimerHandle | None = None

    async def admit(self, caller: Caller, full: float) -> tuple[Standing | None, bytes]:
        """Take a lease if the name has tokens left and may run one more request.

        Args:
            caller: the holder of a key with a share.
            full: the tokens that the name can save up.

        Returns:
            the standing before the request, None if Redis failed; and the lease, to be released.
        """
        share, lease = caller.share, secrets.token_bytes(LEASE_BYTES)
        names = [self._tokens(caller), self._running(caller)]
        limit, milliseconds = share.concurrency or 0, int(1000 * LEASE_SECONDS)
        rate, tokens = (share.rate, full) if share.rate else (0.0, 1.0)
        arguments: list[bytes | float] = [rate, tokens, 0, limit, milliseconds, lease]
        try:
            reply = await self._client.call(
                "shares", lambda: self._client.eval(ADMIT, names, arguments)
            )
        except asyncio.CancelledError:  # it may have been taken
            self.release(caller, lease)
            raise
        if share.concurrency is not None:
            self._leases[caller.name].add(lease)
            self._renew_later()
        return _standing(reply), lease

    def charge(self, caller: Caller, full: float, tokens: int) -> None:
        """Charge a name for tokens, in the background."""
        names, arguments = [self._tokens(caller)], [caller.share.rate or 0.0, full, tokens]
        self._client.run(
            self._client.call("shares", lambda: self._client.eval(CHARGE, names, arguments))
        )

    def release(self, caller: Caller, lease: bytes) -> None:
        """Give a lease back, in the background."""
        if caller.share.concurrency is None:
            return
        leases = self._leases[caller.name]
        leases.discard(lease)
        if not leases:
            del self._leases[caller.name]
        name = self._running(caller)
        self._client.run(self._client.call("shares", lambda: self._remove(name, lease)))

    def close(self) -> None:
        """Renew no more leases."""
        if self._timer is not None:
            self._timer.cancel()

    def _renew_later(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(RENEW_SECONDS, self._renew)

    def _renew(self) -> None:
        self._timer = None
        for name, leases in self._leases.items():
            self._client.run(self._renew_name(name, list(leases)))
        if self._leases:
            self._renew_later()

    async def _renew_name(self, name: str, leases: list[bytes]) -> None:
        names = [self._running(Caller(name))]
        arguments: list[bytes | int] = [int(1000 * LEASE_SECONDS), *leases]
        await self._client.call("shares", lambda: self._client.eval(RENEW, names, arguments))

    def _remove(self, name: bytes, lease: bytes) -> Awaitable[object]:
        return cast(Awaitable[object], self._client.redis.zrem(name, lease))

    def _tokens(self, caller: Caller) -> bytes:
        return TOKENS_OF + self._client.derived(caller.name.encode(), TOKENS)

    def _running(self, caller: Caller) -> bytes:
        return RUNNING_OF + self._client.derived(caller.name.encode(), RUNNING)


def _standing(reply: object) -> Standing | None:
    """Return the standing in a reply; None if there is none."""
    match reply:
        case [bytes() as tokens, int() as running]:
            with suppress(ValueError):
                standing = Standing(float(tokens), running)
                return standing if math.isfinite(standing.tokens) else None
    return None
