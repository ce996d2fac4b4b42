"""Summaries and gold as they are stored: exact, compact, readable with zlib and JSON alone."""

import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, TypeVar

from assay_monitors.extents import Extent, GroupSample
from assay_monitors.gold import GoldPoint
from assay_monitors.intervals import Estimate
from assay_monitors.moments import Comoments, Moments
from assay_monitors.sketch import Sketch
from assay_monitors.summaries import Summary

K = TypeVar("K")
V = TypeVar("V")

NUMBERS = ("items", "nulls", "truncated", "invalid")
COUNTS = ("labels", "flags", "sources", "scripts", "calls")
SKETCHES = ("scores", "characters", "tokens")
ESTIMATES = ("proxy", "gold", "accuracy", "loss", "rank")


def packed(summary: Summary) -> bytes:
    """A summary as bytes, from which `unpacked` makes an equal one."""
    fields: dict[str, Any] = {
        **{name: getattr(summary, name) for name in (*NUMBERS, *COUNTS)},
        **{name: getattr(summary, name).buckets for name in SKETCHES},
        "score": _moments(summary.score),
        "channels": {name: _moments(one) for name, one in summary.channels.items()},
        "telemetry": {name: _moments(one) for name, one in summary.telemetry.items()},
        "pairs": [[*names, *_comoments(one)] for names, one in summary.pairs.items()],
        "length_score": _comoments(summary.length_score),
        "groups": {
            digest: [one.count, one.bounds] for digest, one in summary.groups.extents.items()
        },
    }
    return zlib.compress(json.dumps(fields, separators=(",", ":")).encode(), 1)


def unpacked(data: bytes) -> Summary:
    """The summary that was packed.

    Raises:
        ValueError, zlib.error: the bytes are none of ours.
    """
    fields = json.loads(zlib.decompress(data))
    plain: dict[str, Any] = {name: fields[name] for name in (*NUMBERS, *COUNTS)}
    plain |= {name: Sketch(_each(fields[name], int, int)) for name in SKETCHES}
    return Summary(
        **plain,
        score=Moments(*fields["score"]),
        channels=_each(fields["channels"], str, _read_moments),
        telemetry=_each(fields["telemetry"], str, _read_moments),
        pairs={(one, other): Comoments(*sums) for one, other, *sums in fields["pairs"]},
        length_score=Comoments(*fields["length_score"]),
        groups=GroupSample(_each(fields["groups"], str, _read_extent)),
    )


def gold_text(point: GoldPoint) -> str:
    """A gold measurement as JSON."""
    return json.dumps(asdict(point), separators=(",", ":"))


def gold_point(text: str) -> GoldPoint:
    """The measurement that `gold_text` wrote."""
    fields = json.loads(text)
    for name in ESTIMATES:
        if fields[name] is not None:
            fields[name] = Estimate(*fields[name])
    return GoldPoint(**fields)


def _moments(one: Moments) -> list[float]:
    return [one.count, one.total, one.squares, one.low, one.high] if one.count else []


def _comoments(one: Comoments) -> list[int]:
    return [one.count, one.x, one.y, one.xx, one.yy, one.xy]


def _read_moments(sums: list[Any]) -> Moments:
    return Moments(*sums)


def _read_extent(extent: list[Any]) -> Extent:
    count, bounds = extent
    return Extent(count, {name: (low, high) for name, (low, high) in bounds.items()})


def _each(
    fields: Mapping[str, Any], key: Callable[[str], K], value: Callable[[Any], V]
) -> dict[K, V]:
    return {key(name): value(one) for name, one in fields.items()}
