"""Storage format of summaries and gold: exact, compact, readable with zlib and JSON alone."""

import json
import zlib
from collections.abc import Callable, Mapping
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
_moments_row = attrgetter(*MOMENTS)
_comoments_row = attrgetter(*COMOMENTS)


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
        ValueError, zlib.error: the bytes are not a packed summary.
    """
    values = json.loads(zlib.decompress(data))
    plain: dict[str, Any] = {name: values[name] for name in (*NUMBERS, *COUNTS)}
    plain |= {name: QuantileSketch(_by_name(values[name], int, int)) for name in SKETCHES}
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
    """Return the measurement that `gold_to_json` wrote."""
    values = json.loads(text)
    for name in ESTIMATES:
        if values[name] is not None:
            values[name] = Estimate(*values[name])
    return GoldPoint(**values)


def _pack_moments(moments: Moments) -> list[float]:
    # Without values the extremes are infinite, which JSON has no number for.
    return list(_moments_row(moments)) if moments.count else []


def _unpack_moments(sums: list[Any]) -> Moments:
    return Moments(**dict(zip(MOMENTS, sums, strict=bool(sums))))


def _unpack_comoments(sums: list[Any]) -> Comoments:
    return Comoments(**dict(zip(COMOMENTS, sums, strict=True)))


def _pack_range(group: GroupRange) -> list[Any]:
    return [group.count, group.bounds]


def _unpack_range(packed: list[Any]) -> GroupRange:
    count, bounds = packed
    return GroupRange(count, {name: (low, high) for name, (low, high) in bounds.items()})


def _by_name(
    values: Mapping[Any, Any], key: Callable[[str], K], value: Callable[[Any], V]
) -> dict[K, V]:
    return {key(name): value(item) for name, item in values.items()}
