"""Names of runs: every name that a run may have is a path below which its routes are found."""

import re

MAX_NAME_LENGTH = 256
ROUTES = frozenset(("health", "series", "chart", "events"))
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
# Fast path: most names are one part without dots.
PLAIN = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029/.]+")


def check_run_name(name: str) -> str:
    """Return the name of a run, which may be parts separated by slashes.

    Raises:
        ValueError: no address of a route can hold the name; the message says how to mend it.
    """
    if PLAIN.fullmatch(name):
        return name
    if CONTROL.search(name):
        raise ValueError("a run's name has a line break or another control character: leave it out")
    parts = name.split("/")
    if not all(parts):
        raise ValueError("a run's name begins or ends with a slash, or has two in a row: remove it")
    if not {".", ".."}.isdisjoint(parts):
        raise ValueError("a run's name has a part `.` or `..`, which no address keeps: rename it")
    if len(parts) > 1 and parts[-1] in ROUTES:
        raise ValueError(f"a run's name ends with `/{parts[-1]}`, which is a route: rename the end")
    return name
