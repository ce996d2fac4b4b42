"""Base of both clients: configuration, calls, and connections that never cross a fork."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import ClassVar, Generic, TypeVar

from assay_client._transport.calls import Calls
from assay_client._transport.clock import Clock
from assay_client._transport.config import MAX_REPLY_BYTES, Config, find_key, find_urls

Pool = TypeVar("Pool")


class BaseClient(Generic[Pool]):
    """Configuration and state of a client.

    Args:
        base_url: the server's address, or several: a list, or one string with commas. The default
            is `ASSAY_URL`, and without that `http://127.0.0.1:8000`.
        api_key: sent as `Authorization: Bearer`. The default is `ASSAY_API_KEY`.
        timeout: seconds that one call may take in all, its retries and waits included.
        max_retries: retries of a call, counted over all servers.
        max_items_per_request: longer lists are sent in several requests. The server's own limit
            must not be lower.
        max_reply_bytes: a larger reply, after decompression, is an error.
        http_client: an HTTP client of your own, for a proxy or certificates; you close it. In a
            synchronous one, `timeout` bounds each read of a reply's headers, not all of them.
        clock: the source of time and randomness.
        session_ids: whether requests about one prompt carry `X-Session-ID`, a digest of it, with
            which a proxy can send them to one replica.

    Raises:
        ValueError: an argument or an environment variable is invalid.
    """

    # Longest first: the message names what is to be left out.
    _own_paths: ClassVar[tuple[str, ...]] = (
        "/v1/score",
        "/v1/best-of-n",
        "/v1/models",
        "/score",
        "/readyz",
        "/healthz",
        "/docs",
        "/v1",
    )

    def __init__(
        self,
        base_url: str | Sequence[str] | None = None,
        *,
        api_key: str | None = None,
        timeout: float = 600.0,
        max_retries: int = 4,
        max_items_per_request: int = 1024,
        max_reply_bytes: int = MAX_REPLY_BYTES,
        http_client: Pool | None = None,
        clock: Clock | None = None,
        session_ids: bool = True,
    ) -> None:
        config = Config(
            base_urls=find_urls(base_url, self._own_paths),
            api_key=find_key(api_key),
            timeout=timeout,
            max_retries=max_retries,
            max_items_per_request=max_items_per_request,
            max_reply_bytes=max_reply_bytes,
            session_ids=session_ids,
        )
        self._set_up(config, http_client, clock or Clock())

    def _set_up(self, config: Config, http_client: Pool | None, clock: Clock) -> None:
        self._config = config
        self._http_client = http_client
        self._clock = clock
        self._is_closed = False
        self._reset()

    def _reset(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._pools: dict[object, Pool] = {}
        self._calls = Calls(self._config, self._clock)

    def _open_calls(self) -> Calls:
        """Return the calls of this process.

        A forked worker starts anew, because it must not write into the sockets of its parent.

        Raises:
            RuntimeError: the client is closed.
        """
        if self._is_closed:
            raise RuntimeError("the client is closed")
        if self._process != os.getpid():
            self._reset()
        return self._calls

    def _pool(self, key: object, make: Callable[[], Pool]) -> Pool:
        if self._http_client is not None:
            return self._http_client
        with self._lock:
            pool = self._pools.get(key)
            if pool is None:
                pool = self._pools[key] = make()
            return pool

    def _drop_pools(self, is_ended: Callable[[object], bool]) -> None:
        with self._lock:
            for key in [key for key in self._pools if is_ended(key)]:
                del self._pools[key]

    def _detach_pools(self) -> list[Pool]:
        """Mark the client closed; return the connections of this process, to be closed."""
        self._is_closed = True
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

    def __getstate__(self) -> Config:
        if self._http_client is not None:
            raise TypeError("a client with its own http_client cannot be pickled")
        return self._config

    def __setstate__(self, config: Config) -> None:
        self._set_up(config, None, Clock())
