"""The packages that read mathematics: their versions, and whether they are installed."""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from assay_models.base import ItemError

PACKAGES = ("math-verify", "latex2sympy2_extended", "sympy", "mpmath", "antlr4-python3-runtime")


def versions() -> Mapping[str, str | None]:
    """Return the versions of the packages, which a fingerprint holds; None where one is missing."""
    return {package: _version(package) for package in PACKAGES}


def require_mathematics(found: Mapping[str, str | None]) -> None:
    """Raise `mathematics_unavailable` where a package is missing."""
    if None in found.values():
        raise ItemError(
            "mathematics_unavailable",
            "math answers need math-verify: in a checkout of Assay, pip install '.[answers]'",
        )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
