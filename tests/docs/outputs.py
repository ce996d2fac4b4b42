"""Comparison of the output that a page prints with the output that its command gave.

Numbers agree within a relative tolerance. `…` stands for anything: in a text a line of its own for
any lines, within a line for any characters; in JSON as a value for any value, as a key for further
keys, as the last element of a list for further elements. Values that change with each run are
masked: in JSON by name, in text where they are times, durations, rates, process ids or request ids.
"""

import json
import math
import re
from collections.abc import Sequence
from typing import Any

TOLERANCE = 1e-3
ELISION = "…"
CHANGING = frozenset(("request_id", "timing", "created", "first_seen", "last_seen"))
NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:e[-+]?\d+)?(?!\w)")
MASKS = (
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[-+]\d{4}"), "<time>"),
    (re.compile(r"[-+]?[\d,.]+ ?(?:ms|s|seconds|minutes|items/s|it/s)(?![\w/])"), "<duration>"),
    (re.compile(r"[\d,.]+/s(?!\w)"), "<rate>"),
    (re.compile(r"(?<=process \[)\d+(?=\])"), "<pid>"),
    (re.compile(r"\b(score|alert)-[0-9a-f]{32}\b|\b[0-9a-f]{32}\b"), "<id>"),
)


class DifferentOutput(AssertionError):
    """The printed and the actual output differ."""


def check_output(printed: str, actual: str, tolerance: float = TOLERANCE) -> None:
    """Compare the printed with the actual output, as JSON where both are, else as text.

    Raises:
        DifferentOutput: they differ; the message shows where, and the whole actual output.
    """
    try:
        wanted, given = _documents(printed), _documents(actual)
    except ValueError:
        _check_text(printed.splitlines(), actual.splitlines(), tolerance)
        return
    if wanted[-1:] != [ELISION] and len(wanted) != len(given):
        raise DifferentOutput(f"{len(wanted)} documents are printed, there are {len(given)}")
    for number, (document, other) in enumerate(zip(wanted, given, strict=False)):
        _check_json(document, other, tolerance, f"[{number}]", top=True)


def _documents(text: str) -> list[Any]:
    """Return one JSON document, or those of all lines.

    Raises:
        ValueError: the text is not JSON.
    """
    if not text.lstrip().startswith(("{", "[")):
        raise ValueError("no object and no array")
    try:
        return [json.loads(text)]
    except ValueError:
        return [json.loads(line) for line in text.splitlines() if line.strip()]


def _check_json(printed: Any, actual: Any, tolerance: float, path: str, top: bool = False) -> None:
    if printed == ELISION:
        return
    if isinstance(printed, dict) and isinstance(actual, dict):
        _check_objects(printed, actual, tolerance, path, top)
    elif isinstance(printed, list) and isinstance(actual, list):
        _check_lists(printed, actual, tolerance, path)
    elif _is_number(printed) and _is_number(actual):
        if not _close(printed, actual, tolerance):
            raise DifferentOutput(f"{path}: {printed} is printed, it is {actual}")
    elif printed != actual or isinstance(printed, bool) != isinstance(actual, bool):
        raise DifferentOutput(f"{path}: {printed!r} is printed, it is {actual!r}")


def _check_objects(
    printed: dict[str, Any], actual: dict[str, Any], tolerance: float, path: str, top: bool
) -> None:
    names = set(printed) - {ELISION}
    if names - set(actual) or (ELISION not in printed and set(actual) - names):
        raise DifferentOutput(f"{path}: printed are {sorted(printed)}, there are {sorted(actual)}")
    masked = CHANGING | ({"id"} if top else set())
    for name in sorted(names - masked):
        _check_json(printed[name], actual[name], tolerance, f"{path}.{name}")


def _check_lists(printed: list[Any], actual: list[Any], tolerance: float, path: str) -> None:
    open_ended = printed[-1:] == [ELISION]
    wanted = printed[:-1] if open_ended else printed
    if len(actual) < len(wanted) or (not open_ended and len(actual) > len(wanted)):
        raise DifferentOutput(f"{path}: {len(wanted)} are printed, there are {len(actual)}")
    for number, value in enumerate(wanted):
        _check_json(value, actual[number], tolerance, f"{path}[{number}]")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _close(printed: float, actual: float, tolerance: float) -> bool:
    return math.isclose(printed, actual, rel_tol=tolerance, abs_tol=1e-9)


def _check_text(printed: Sequence[str], actual: Sequence[str], tolerance: float) -> None:
    wanted, given = _words(printed), _words(actual)
    problem = _match(wanted, given, tolerance)
    if problem is not None:
        shown = "\n".join(given)
        raise DifferentOutput(f"{problem}\nthe output is:\n{shown}")


def _words(lines: Sequence[str]) -> list[str]:
    """Return the lines that are not blank, with single spaces and the shortest of rules."""
    return [" ".join(re.sub("─+", "─", line).split()) for line in lines if line.strip()]


def _match(printed: Sequence[str], actual: Sequence[str], tolerance: float) -> str | None:
    """Return the first printed line that has no counterpart, None if all agree."""
    if not printed:
        return f"not printed: {actual[0]}" if actual else None
    if printed[0] == ELISION:
        rests = [actual[start:] for start in range(len(actual) + 1)]
        if any(_match(printed[1:], rest, tolerance) is None for rest in rests):
            return None
        return f"nothing after … continues as printed: {printed[1] if printed[1:] else ''}"
    if not actual:
        return f"printed and not output: {printed[0]}"
    if not _same_line(printed[0], actual[0], tolerance):
        return f"printed: {printed[0]}\noutput:  {actual[0]}"
    return _match(printed[1:], actual[1:], tolerance)


def _same_line(printed: str, actual: str, tolerance: float) -> bool:
    for pattern, name in MASKS:
        printed, actual = pattern.sub(name, printed), pattern.sub(name, actual)
    wanted = [_number(text) for text in NUMBER.findall(printed)]
    literals = [re.escape(part).replace(ELISION, ".*?") for part in NUMBER.split(printed)]
    matched = re.fullmatch(f"({NUMBER.pattern})".join(literals), actual)
    if matched is None:
        return False
    given = [_number(text) for text in matched.groups()]
    return all(_close(*pair, tolerance) for pair in zip(wanted, given, strict=True))


def _number(text: str) -> float:
    return float(text.replace(",", "").rstrip("."))
