"""RedisLocks: short locks of keys in Redis, by which replicas see what others compute."""

import hashlib
import secrets
from collections.abc import Awaitable, Collection, Sequence
from typing import NamedTuple, cast

from assay.cache.redis import RedisCache
from assay.cache.redis_client import CHECKSUM, PREFIX, RedisClient
from assay_models.base import Raw

LOCK, ALIVE = b"assay lock", b"assay alive"
"""Purposes of derived keys."""
LOCKS, REPLICAS = PREFIX + b"lock:", PREFIX + b"replica:"
TOKEN_BYTES = 16
CHECKSUM_BYTES = 8
ALIVE_SECONDS = 3.0
"""A replica that was killed counts as alive for at most this long."""

# KEYS: the locks, as many raws, and this replica. ARGV: milliseconds of a lock and of a replica,
# then the locks' values. Returns for each key its raw, or else the value of its lock.
CLAIM = """
local count, replies = (#KEYS - 1) / 2, {}
redis.call('SET', KEYS[#KEYS], '1', 'PX', ARGV[2])
for i = 1, count do
  local reply = redis.pcall('GET', KEYS[count + i])
  if type(reply) ~= 'string' then
    redis.pcall('SET', KEYS[i], ARGV[2 + i], 'NX', 'PX', ARGV[1])
    reply = redis.pcall('GET', KEYS[i])
  end
  replies[i] = type(reply) == 'string' and reply
end
return replies
"""
# KEYS: the locks. ARGV: their values. A lock of another replica stays.
RELEASE = """
for i, lock in ipairs(KEYS) do
  if redis.pcall('GET', lock) == ARGV[i] then redis.call('DEL', lock) end
end
return 1
"""


class KeyState(NamedTuple):
    """The raw of a key, or else the replica that holds its lock; neither if there is none."""

    raw: Raw | None
    holder: bytes | None


class RedisLocks:
    """The locks of this replica and of others. No method raises: a failure is None, and counted.

    A lock's value is its replica's token and a checksum keyed by the key, so that a value of
    another key, or one written without the secret, is no lock. A replica that computes renews one
    key of its own, so that a lock may outlast a long queue, and one of a killed replica counts for
    `ALIVE_SECONDS`.

    Args:
        client: the client of the Redis.
        cache: the raws in that Redis.
        seconds: seconds after which a lock ends by itself.
    """

    def __init__(self, client: RedisClient, cache: RedisCache, *, seconds: float) -> None:
        self._client = client
        self._cache = cache
        self._seconds = seconds
        self.token = secrets.token_bytes(TOKEN_BYTES)

    async def claim(self, keys: Sequence[bytes]) -> list[KeyState] | None:
        """Lock the keys that have neither a raw nor a lock, in one call and atomically.

        Returns:
            the state of each key afterwards.
        """
        names = [*map(self._lock, keys), *map(self._cache.name, keys), self._replica(self.token)]
        times = (int(1000 * self._seconds), int(1000 * ALIVE_SECONDS))
        arguments: list[bytes | int] = [*times, *(self._value(key, self.token) for key in keys)]
        replies = await self._client.call(
            "claims", lambda: self._client.eval(CLAIM, names, arguments)
        )
        if not isinstance(replies, list) or len(replies) != len(keys):
            return None
        return [self._state(key, reply, reply) for key, reply in zip(keys, replies, strict=True)]

    async def release(self, keys: Sequence[bytes]) -> None:
        """End the locks that are this replica's."""
        names = [self._lock(key) for key in keys]
        values = [self._value(key, self.token) for key in keys]
        await self._client.call("claims", lambda: self._client.eval(RELEASE, names, values))

    async def renew(self) -> None:
        """Keep this replica alive for others."""
        name, milliseconds = self._replica(self.token), int(1000 * ALIVE_SECONDS)
        await self._client.call(
            "claims", lambda: self._client.redis.set(name, b"1", px=milliseconds)
        )

    async def read(
        self, keys: Sequence[bytes], replicas: Collection[bytes]
    ) -> tuple[list[KeyState], set[bytes]] | None:
        """Return the keys' states, and those of the replicas that are alive, with one MGET."""
        names = [*map(self._cache.name, keys), *map(self._lock, keys)]
        names += map(self._replica, replicas)
        values = await self._client.call("claims", lambda: self._mget(names))
        if not isinstance(values, list) or len(values) != len(names):
            return None
        count = len(keys)
        raws, locks, beats = values[:count], values[count : 2 * count], values[2 * count :]
        states = list(map(self._state, keys, raws, locks))
        return states, {token for token, beat in zip(replicas, beats, strict=True) if beat}

    def _state(self, key: bytes, raw: object, lock: object) -> KeyState:
        decoded = self._cache.decode(key, raw)
        return KeyState(decoded, None if decoded is not None else self._holder(key, lock))

    def _holder(self, key: bytes, lock: object) -> bytes | None:
        """Return the token in a lock; None if it is no lock of this key."""
        if not isinstance(lock, bytes) or len(lock) != TOKEN_BYTES + CHECKSUM_BYTES:
            return None
        token = lock[:TOKEN_BYTES]
        return token if lock == self._value(key, token) else None

    def _value(self, key: bytes, token: bytes) -> bytes:
        secret = self._client.derived(key, CHECKSUM)
        return token + hashlib.blake2b(token, digest_size=CHECKSUM_BYTES, key=secret).digest()

    def _lock(self, key: bytes) -> bytes:
        return LOCKS + self._client.derived(key, LOCK)

    def _replica(self, token: bytes) -> bytes:
        return REPLICAS + self._client.derived(token, ALIVE)

    def _mget(self, names: Sequence[bytes]) -> Awaitable[object]:
        return cast(Awaitable[object], self._client.redis.mget(names))
