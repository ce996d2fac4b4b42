"""Configuration of a client: from arguments, else the environment, else defaults."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

MAX_REPLY_BYTES = 134_217_728
DEFAULT_URL = "http://127.0.0.1:8000"

_EXPECTED = "base_url must be like http://host:8000"
_HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")


@dataclass(frozen=True)
class Config:
    """Configuration of a client. Only this part of a client is pickled."""

    base_urls: tuple[str, ...]
    api_key: str | None = field(repr=False)
    timeout: float
    max_retries: int
    max_items_per_request: int
    max_reply_bytes: int
    gather: bool = False
    session_ids: bool = True

    def __post_init__(self) -> None:
        check_timeout(self.timeout)
        _check_count("max_retries", self.max_retries, 0)
        _check_count("max_items_per_request", self.max_items_per_request, 1)
        _check_count("max_reply_bytes", self.max_reply_bytes, 1)


def check_timeout(seconds: Any) -> float:
    """Return the timeout unchanged, if it is a positive, finite number of seconds.

    Raises:
        ValueError: it is not.
    """
    is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    if not (is_number and math.isfinite(seconds) and seconds > 0):
        raise ValueError("timeout must be a positive number of seconds; a call has always one")
    return float(seconds)


def _check_count(name: str, value: Any, minimum: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ValueError(f"{name} must be a whole number, at least {minimum}")


def find_urls(base_url: Any, no_part: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the servers' addresses: the argument, else `ASSAY_URL`, else this machine.

    Args:
        base_url: the argument, as the caller gave it.
        no_part: paths at the end of an address that the client itself adds.

    Raises:
        ValueError: there is none, or one is not an address.
    """
    given = base_url if base_url is not None else os.environ.get("ASSAY_URL") or DEFAULT_URL
    parts = given.split(",") if isinstance(given, str) else given
    if not isinstance(parts, Sequence) or not all(isinstance(part, str) for part in parts):
        raise ValueError(f"{_EXPECTED}, or a list of such addresses")
    urls = [_check_url(part.strip(), no_part) for part in parts if part.strip()]
    if not urls:
        raise ValueError(f"base_url names no server: {_EXPECTED}")
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


def _check_url(url: str, no_part: Sequence[str]) -> str:
    # The messages do not quote the address, which may carry a password.
    if "://" not in url:
        raise ValueError(f"base_url has no scheme: {_EXPECTED}")
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise ValueError("base_url must not hold a password; give the key as api_key")
    if parts.scheme not in ("http", "https") or not _HOST.fullmatch(parts.netloc):
        raise ValueError(_EXPECTED)
    if parts.query or parts.fragment:
        raise ValueError("base_url must not have a query or a fragment")
    path = parts.path.rstrip("/")
    route = next((route for route in no_part if path.endswith(route)), None)
    if route is not None:
        raise ValueError(
            f"base_url ends in {route}, which the client adds itself: give what is before it"
        )
    return url.rstrip("/")
