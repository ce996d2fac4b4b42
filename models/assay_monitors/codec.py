"""Storage format of summaries and gold: exact, compact, readable with zlib and JSON alone."""

import json
import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields
from operator import attrgetter
from typing import Any, TypeVar

from assay_monitors.gold import GoldPoint
from assay_monitors.group_ranges import GroupRange, GroupSample
from assay_monitors.intervals import Estimate
from assay_monitors.moments import Comoments, Moments
from assay_monitors.sketch import QuantileSketch
from assay_monitors.summaries import Summary

K = TypeVar("K")
V = TypeVar("V")

NUMBERS = ("items", "nulls", "truncated", "invalid")
COUNTS = ("labels", "flags", "sources", "scripts", "calls")
SKETCHES = ("scores", "characters", "tokens")
ESTIMATES = ("proxy", "gold", "accuracy", "loss", "rank")
MOMENTS = tuple(field.name for field in fields(Moments))
COMOMENTS = tuple(field.name for field in fields(Comoments))
MAX_SUMMARY_BYTES = 4 * 2**20
"""Bytes of a summary's JSON. A real one has a tenth of them at most."""
_moments_row = attrgetter(*MOMENTS)
_comoments_row = attrgetter(*COMOMENTS)


class DamagedRowError(ValueError):
    """A stored value cannot be read: it is damaged, of another type, or of another version."""


def pack_summary(summary: Summary) -> bytes:
    """Return a summary as bytes, from which `unpack_summary` makes an equal one."""
    values: dict[str, Any] = {
        **{name: getattr(summary, name) for name in (*NUMBERS, *COUNTS)},
        **{name: getattr(summary, name).buckets for name in SKETCHES},
        "score": _pack_moments(summary.score),
        "channels": _by_name(summary.channels, str, _pack_moments),
        "telemetry": _by_name(summary.telemetry, str, _pack_moments),
        "pairs": [[*names, *_comoments_row(sums)] for names, sums in summary.pairs.items()],
        "length_score": _comoments_row(summary.length_score),
        "groups": _by_name(summary.groups.ranges, str, _pack_range),
    }
    return zlib.compress(json.dumps(values, separators=(",", ":")).encode(), 1)


def unpack_summary(data: bytes) -> Summary:
    """Return the summary that `pack_summary` packed.

    Raises:
        DamagedRowError: the value is not a packed summary.
    """
    with _damage_as_one_error():
        return _unpack_summary(json.loads(_decompress(data)))


def _unpack_summary(values: Mapping[str, Any]) -> Summary:
    plain: dict[str, Any] = {name: _whole(values[name]) for name in NUMBERS}
    plain |= {name: _by_name(values[name], str, _whole) for name in COUNTS}
    plain |= {name: QuantileSketch(_by_name(values[name], int, _whole)) for name in SKETCHES}
    return Summary(
        **plain,
        score=_unpack_moments(values["score"]),
        channels=_by_name(values["channels"], str, _unpack_moments),
        telemetry=_by_name(values["telemetry"], str, _unpack_moments),
        pairs={
            (first, second): _unpack_comoments(sums) for first, second, *sums in values["pairs"]
        },
        length_score=_unpack_comoments(values["length_score"]),
        groups=GroupSample(_by_name(values["groups"], str, _unpack_range)),
    )


def gold_to_json(point: GoldPoint) -> str:
    """Return a gold measurement as JSON."""
    return json.dumps(asdict(point), separators=(",", ":"))


def gold_from_json(text: str) -> GoldPoint:
    """Return the measurement that `gold_to_json` wrote.

    Raises:
        DamagedRowError: the value is no measurement.
    """
    with _damage_as_one_error():
        values = json.loads(text)
        for name in ESTIMATES:
            if values[name] is not None:
                values[name] = _unpack_estimate(*values[name])
        if values["gradient_norm"] is not None:
            values["gradient_norm"] = _number(values["gradient_norm"])
        return GoldPoint(**values | {"step": _whole(values["step"])})


@contextmanager
def _damage_as_one_error() -> Iterator[None]:
    """Turn each error that a value of any content can raise into `DamagedRowError`."""
    try:
        yield
    except (zlib.error, ArithmeticError, AttributeError, LookupError, RecursionError) as error:
        raise DamagedRowError(type(error).__name__) from error
    except (TypeError, ValueError) as error:
        raise DamagedRowError(type(error).__name__) from error


def _decompress(data: bytes) -> bytes:
    """Return the decompressed bytes, of which there may be `MAX_SUMMARY_BYTES`."""
    reader = zlib.decompressobj()
    content = reader.decompress(data, MAX_SUMMARY_BYTES)
    if not reader.eof:
        raise ValueError("cut short, or too long")
    return content


def _whole(value: object) -> int:
    if type(value) is not int:
        raise TypeError("not a whole number")
    return value


def _number(value: object) -> float:
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError("not a finite number")
    return value


def _unpack_estimate(value: object, low: object, high: object, n: object) -> Estimate:
    return Estimate(_number(value), _number(low), _number(high), _whole(n))


def _pack_moments(moments: Moments) -> list[float]:
    # Without values the extremes are infinite, which JSON has no number for.
    return list(_moments_row(moments)) if moments.count else []


def _unpack_moments(sums: list[Any]) -> Moments:
    if not sums:
        return Moments()
    count, total, squares, low, high = sums
    if count * squares < total * total:
        raise ValueError("no variance is negative")
    return Moments(
        count=_whole(count),
        total=_whole(total),
        squares=_whole(squares),
        low=_number(low),
        high=_number(high),
    )


def _unpack_comoments(sums: list[Any]) -> Comoments:
    return Comoments(**dict(zip(COMOMENTS, map(_whole, sums), strict=True)))


def _pack_range(group: GroupRange) -> list[Any]:
    return [group.count, group.bounds]


def _unpack_range(packed: list[Any]) -> GroupRange:
    count, bounds = packed
    ranges = {name: (_number(low), _number(high)) for name, (low, high) in bounds.items()}
    return GroupRange(_whole(count), ranges)


def _by_name(
    values: Mapping[Any, Any], key: Callable[[str], K], value: Callable[[Any], V]
) -> dict[K, V]:
    return {key(name): value(item) for name, item in values.items()}
