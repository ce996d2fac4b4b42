"""Configuration of a client: from arguments, else the environment, else defaults."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

DEFAULT_URL = "http://127.0.0.1:8000"

_HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")


@dataclass(frozen=True)
class Config:
    """Configuration of a client. Only this part of a client is pickled."""

    base_urls: tuple[str, ...]
    api_key: str | None = field(repr=False)
    timeout: float
    max_retries: int
    max_items_per_request: int
    gather: bool = False

    def __post_init__(self) -> None:
        check_timeout(self.timeout)
        if self.max_retries < 0:
            raise ValueError("max_retries must not be negative")
        if self.max_items_per_request < 1:
            raise ValueError("max_items_per_request must be at least 1")


def check_timeout(seconds: float) -> float:
    """Return the timeout unchanged, if it is a positive, finite number of seconds.

    Raises:
        ValueError: it is not.
    """
    if not (math.isfinite(seconds) and seconds > 0):
        raise ValueError("timeout must be a positive number of seconds")
    return seconds


def find_urls(base_url: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the servers' addresses: the argument, else `ASSAY_URL`, else this machine.

    Raises:
        ValueError: there is none, or one is not an address.
    """
    given = base_url if base_url is not None else os.environ.get("ASSAY_URL") or DEFAULT_URL
    parts = given.split(",") if isinstance(given, str) else given
    urls = [_check_url(part.strip()) for part in parts if part.strip()]
    if not urls:
        raise ValueError("base_url names no server")
    return tuple(dict.fromkeys(urls))


def find_key(api_key: str | None) -> str | None:
    """Return the key: the argument, else `ASSAY_API_KEY`, else None.

    Raises:
        ValueError: a header cannot carry it.
    """
    key = api_key if api_key is not None else os.environ.get("ASSAY_API_KEY")
    if not key:
        return None
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise ValueError("the API key has characters that a header cannot carry")
    return key


def _check_url(url: str) -> str:
    # The messages do not quote the address, which may carry a password.
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise ValueError("base_url must not hold a password; give the key as api_key")
    if parts.scheme not in ("http", "https") or not _HOST.fullmatch(parts.netloc):
        raise ValueError("base_url must be like http://host:8000")
    if parts.query or parts.fragment:
        raise ValueError("base_url must not have a query or a fragment")
    return url.rstrip("/")
