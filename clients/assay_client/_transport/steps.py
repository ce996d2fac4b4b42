"""Steps of a call: what its generator yields for a client to do."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Optional, TypeVar, Union

from assay_client.types import Response

T = TypeVar("T")


@dataclass(frozen=True)
class Send:
    """A request to send. Its response must be complete by `deadline`, on the monotonic clock."""

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes | None = field(repr=False)
    timeout: float
    deadline: float
    max_reply_bytes: int


@dataclass(frozen=True)
class Wait:
    """A wait."""

    seconds: float


Steps = Generator[Union[Send, Wait], Optional[Response], T]
