"""What both clients are made of: configuration, calls, and connections that never cross a fork."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from assay_client._transport.calls import Calls
from assay_client._transport.clock import Clock
from assay_client._transport.config import Config, find_key, find_urls

Pool = TypeVar("Pool")


class BaseClient(Generic[Pool]):
    """Configuration and state of a client.

    Args:
        base_url: the server's address, or several: a list, or one string with commas. Without it
            `ASSAY_URL` holds, and without that `http://127.0.0.1:8000`.
        api_key: sent as `Authorization: Bearer`. Without it `ASSAY_API_KEY` holds.
        timeout: seconds that one call may last in all, its retries and waits included.
        max_retries: how often a call is tried again, on whichever server.
        max_items_per_request: longer lists are sent in several requests. The server's own limit
            must not be lower.
        http_client: an HTTP client of your own, for a proxy or certificates; you close it.
        clock: where time and chance come from.

    Raises:
        ValueError: an argument or a variable of the environment cannot be used.
    """

    def __init__(
        self,
        base_url: str | Sequence[str] | None = None,
        *,
        api_key: str | None = None,
        timeout: float = 60.0,
        max_retries: int = 4,
        max_items_per_request: int = 1024,
        http_client: Pool | None = None,
        clock: Clock | None = None,
    ) -> None:
        config = Config(
            base_urls=find_urls(base_url),
            api_key=find_key(api_key),
            timeout=timeout,
            max_retries=max_retries,
            max_items_per_request=max_items_per_request,
        )
        self._set_up(config, http_client, clock or Clock())

    def _set_up(self, config: Config, http_client: Pool | None, clock: Clock) -> None:
        self._config = config
        self._http_client = http_client
        self._clock = clock
        self._closed = False
        self._start()

    def _start(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._pools: dict[object, Pool] = {}
        self._calls = Calls(self._config, self._clock)

    def _ready_calls(self) -> Calls:
        """The calls of this process. A forked worker begins anew: it must not write into the
        sockets of its parent."""
        if self._closed:
            raise RuntimeError("the client is closed")
        if self._process != os.getpid():
            self._start()
        return self._calls

    def _pool(self, key: object, make: Callable[[], Pool]) -> Pool:
        if self._http_client is not None:
            return self._http_client
        with self._lock:
            pool = self._pools.get(key)
            if pool is None:
                pool = self._pools[key] = make()
            return pool

    def _forget(self, ended: Callable[[object], bool]) -> None:
        with self._lock:
            for key in [key for key in self._pools if ended(key)]:
                del self._pools[key]

    def _take_pools(self) -> list[Pool]:
        self._closed = True
        with self._lock:
            pools = list(self._pools.values()) if self._process == os.getpid() else []
            self._pools.clear()
            return pools

    def __repr__(self) -> str:
        config = self._config
        return (
            f"{type(self).__name__}({','.join(config.base_urls)!r}, "
            f"timeout={config.timeout:g}, max_retries={config.max_retries})"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        if self._http_client is not None:
            raise TypeError("a client with its own http_client cannot be pickled")
        return _restore, (type(self), self._config)


def _restore(kind: type[BaseClient[Any]], config: Config) -> BaseClient[Any]:
    client = kind.__new__(kind)
    client._set_up(config, None, Clock())
    return client
