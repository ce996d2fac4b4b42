"""Immutable requests: encoding, splitting, and joining of the replies. No I/O."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote

from assay_client._transport.arguments import JsonObject, ScoreArguments
from assay_client._transport.zip import zip_strict
from assay_client.errors import ProtocolError
from assay_client.types import Priority, Result, ScoreReply, Timing, Usage


@dataclass(frozen=True)
class Request:
    """A request, not yet addressed to a server.

    Attributes:
        session_id: the same for all requests about one prompt; None if it is about several.
    """

    method: str
    path: str
    body: bytes | None = field(default=None, repr=False)
    session_id: str | None = None


def check_request(request: Request) -> None:
    """Check a request that a caller made.

    Raises:
        ValueError: its path has no first slash, or its body is not bytes.
    """
    if not (isinstance(request.path, str) and request.path.startswith("/")):
        raise ValueError("path must begin with /, such as /v1/models")
    if not isinstance(request.body, (bytes, type(None))):
        raise ValueError("content must be bytes, such as json.dumps(...).encode()")


def score_request(arguments: ScoreArguments, items: Sequence[JsonObject]) -> Request:
    """Build POST /v1/score for some of a call's items."""
    fields = {"options": arguments.options, "run": arguments.run}
    body = {"model": arguments.model, "items": items, **_without_none(fields)}
    return Request("POST", "/v1/score", encode(body, "items"))


@dataclass(frozen=True)
class BatchKey:
    """The fields on which requests must agree to share a batch. Options and run are JSON."""

    model: str
    options: bytes | None
    run: bytes | None
    priority: Priority | None


def batch_key(arguments: ScoreArguments) -> BatchKey:
    """Return the batch key of a request.

    Raises:
        ValueError: a field cannot be written as JSON.
    """
    given = (arguments.options, arguments.run)
    encoded = [None if value is None else encode(value, "") for value in given]
    # The name is encoded later, by `batch_request`; check here that it can be.
    encode({"model": arguments.model}, "")
    return BatchKey(arguments.model, encoded[0], encoded[1], arguments.priority)


def encode_items(items: Sequence[JsonObject]) -> list[bytes]:
    """Encode each item as JSON.

    Raises:
        ValueError: an item cannot be written; the message names its place, and never quotes it.
    """
    try:
        return [encode_value(item) for item in items]
    except (TypeError, ValueError, RecursionError):
        reason = _find_unencodable({"items": items}, "items")
    raise ValueError(reason)


def batch_request(key: BatchKey, items: Sequence[bytes]) -> Request:
    """Build POST /v1/score from items that are encoded already."""
    body = b'{"model":' + encode_value(key.model) + b',"items":[' + b",".join(items) + b"]"
    for name, value in ((b"options", key.options), (b"run", key.run)):
        if value is not None:
            body += b',"' + name + b'":' + value
    return Request("POST", "/v1/score", body + b"}")


def best_of_n_request(
    model: str, candidates: Sequence[object], shared: JsonObject, choices: JsonObject
) -> Request:
    """Build POST /v1/best-of-n."""
    body = {"model": model, "candidates": candidates, **shared, **_without_none(choices)}
    return Request("POST", "/v1/best-of-n", encode(body, "candidates"))


def models_request() -> Request:
    """Build GET /v1/models."""
    return Request("GET", "/v1/models")


def model_request(name: str) -> Request:
    """Build GET /v1/models/{model}."""
    return Request("GET", f"/v1/models/{quote(name, safe='@')}")


def run_health_request(run: str) -> Request:
    """Build GET /v1/runs/{run}/health."""
    return Request("GET", f"/v1/runs/{quote(run, safe='')}/health")


def telemetry_request(run: str, step: int, values: Mapping[str, float]) -> Request:
    """Build POST /v1/runs/{run}/telemetry."""
    body = encode({"step": step, "values": dict(values)}, "values")
    return Request("POST", f"/v1/runs/{quote(run, safe='')}/telemetry", body)


def _without_none(fields: JsonObject) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def encode(body: Mapping[str, Any], list_field: str) -> bytes:
    """Encode the body as JSON. Scalars, arrays and mappings of other libraries become plain ones.

    Raises:
        ValueError: it cannot be written (NaN, a lone surrogate, a date); the message names the
            element of the body's list `list_field` that is the reason, and never quotes it.
    """
    try:
        return encode_value(body)
    except (TypeError, ValueError, RecursionError):
        reason = _find_unencodable(body, list_field)
    # Raised outside of the handler, because an encoding error holds the whole text.
    raise ValueError(reason)


def encode_value(value: object) -> bytes:
    """Encode a value as JSON, without spaces.

    Raises:
        TypeError: it is of a type that JSON does not have.
        ValueError: it has NaN, an infinity or a lone surrogate.
    """
    text = json.dumps(
        value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_to_plain
    )
    return text.encode("utf-8")


def _to_plain(value: Any) -> Any:
    """Return an array, a scalar or a container of another library as JSON knows it."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return list(value)
    raise TypeError


def _find_unencodable(body: Mapping[str, Any], list_field: str) -> str:
    entries = body.get(list_field, ())
    numbered = entries.items() if isinstance(entries, Mapping) else enumerate(entries)
    for index, entry in numbered:
        if not _is_encodable(entry):
            return _describe(f"{list_field}[{index}]", entry)
    return _describe("the request", {name: body[name] for name in body if name != list_field})


def _describe(place: str, entry: Any) -> str:
    reason = f"it {_reason(entry)}"
    if isinstance(entry, Mapping):
        names = [name for name, value in entry.items() if not _is_encodable(value)]
        reason = f"its field {names[0]!r} {_reason(entry[names[0]])}" if names else reason
    return f"{place} cannot be written as JSON: {reason}; use strings, finite numbers, lists, dicts"


def _reason(value: Any) -> str:
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, str):
        return "has a lone surrogate"
    if isinstance(value, float):
        return "is NaN (a missing value?)" if math.isnan(value) else "is infinite"
    is_container = isinstance(value, (Mapping, list, tuple))
    return "holds another value" if is_container else f"is of type {type(value).__name__}"


def _is_encodable(value: object) -> bool:
    try:
        encode_value(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def split(items: Sequence[JsonObject], limit: int) -> list[list[int]]:
    """Split a list of items into requests; return the indices of each request's items, rising.

    Items of one group stay together, because ranks and means need the whole group.

    Raises:
        ValueError: a group has more than `limit` items.
    """
    parts: list[list[int]] = []
    remaining = 0
    for group in _group_indices(items):
        if len(group) > limit:
            raise ValueError(
                f"a group of {len(group)} items does not fit in one request of {limit}; raise "
                "max_items_per_request, and the server's limit with it, or make the group smaller"
            )
        if len(group) > remaining:
            parts.append([])
            remaining = limit
        parts[-1].extend(group)
        remaining -= len(group)
    return [sorted(part) for part in parts]


def _group_indices(items: Sequence[JsonObject]) -> list[list[int]]:
    """Return the indices of each group's items, which must stay together.

    An item without a group is a group of its own.
    """
    groups: dict[object, list[int]] = {}
    for index, item in enumerate(items):
        name = item.get("group")
        groups.setdefault(name if isinstance(name, str) else index, []).append(index)
    return list(groups.values())


def join(parts: Sequence[Sequence[int]], replies: Sequence[ScoreReply]) -> ScoreReply:
    """Join the replies to the parts, with the results in the order of the items.

    Raises:
        ProtocolError: the parts were scored by different models.
    """
    first = replies[0]
    if len(replies) == 1:
        return first
    if any(_scorer(reply) != _scorer(first) for reply in replies):
        raise ProtocolError("the model changed between two parts of the request; score it again")
    results: dict[int, Result] = {}
    for part, reply in zip_strict(parts, replies):
        for index, result in zip_strict(part, reply.results):
            results[index] = replace(result, index=index)
    return replace(
        first,
        results=tuple(results[index] for index in sorted(results)),
        groups=tuple(group for reply in replies for group in reply.groups),
        usage=_sum_usage(replies),
        timing=_sum_timing(replies),
    )


def _scorer(reply: ScoreReply) -> tuple[str, str]:
    return reply.model, reply.fingerprint


def _sum_usage(replies: Sequence[ScoreReply]) -> Usage:
    return Usage(
        items=sum(reply.usage.items for reply in replies),
        tokens=sum(reply.usage.tokens for reply in replies),
        computed=sum(reply.usage.computed for reply in replies),
        cached=sum(reply.usage.cached for reply in replies),
        shared=sum(reply.usage.shared for reply in replies),
        rule=sum(reply.usage.rule for reply in replies),
        failed=sum(reply.usage.failed for reply in replies),
    )


def _sum_timing(replies: Sequence[ScoreReply]) -> Timing:
    return Timing(
        prepare_ms=sum(reply.timing.prepare_ms for reply in replies),
        queue_ms=sum(reply.timing.queue_ms for reply in replies),
        predict_ms=sum(reply.timing.predict_ms for reply in replies),
        total_ms=sum(reply.timing.total_ms for reply in replies),
    )
