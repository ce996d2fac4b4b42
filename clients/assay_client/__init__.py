"""The thin client of Assay, a server for reward models."""

from assay_client._clock import Clock
from assay_client._version import __version__
from assay_client.async_client import AsyncClient
from assay_client.client import Client
from assay_client.errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AssayError,
    AuthenticationError,
    DeadlineExceededError,
    InferenceFailedError,
    InvalidRequestError,
    ItemFailedError,
    NotFoundError,
    NotReadyError,
    PermissionDeniedError,
    ProtocolError,
    RateLimitError,
    RequestTooLargeError,
    ServerError,
)
from assay_client.sampling import draw_until_sure
from assay_client.types import (
    BestOfN,
    Group,
    ItemError,
    Model,
    Ranked,
    Result,
    ScoreReply,
    Timing,
    Usage,
)

__all__ = [
    "APIConnectionError",
    "APIStatusError",
    "APITimeoutError",
    "AssayError",
    "AsyncClient",
    "AuthenticationError",
    "BestOfN",
    "Client",
    "Clock",
    "DeadlineExceededError",
    "Group",
    "InferenceFailedError",
    "InvalidRequestError",
    "ItemError",
    "ItemFailedError",
    "Model",
    "NotFoundError",
    "NotReadyError",
    "PermissionDeniedError",
    "ProtocolError",
    "Ranked",
    "RateLimitError",
    "RequestTooLargeError",
    "Result",
    "ScoreReply",
    "ServerError",
    "Timing",
    "Usage",
    "__version__",
    "draw_until_sure",
]
