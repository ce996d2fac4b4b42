"""Assay on Ray Serve: `serve run assay_ray:app`.

The deployment is imported when it is asked for, because Serve's controller imports the policy of
this package and needs no server.
"""

from typing import Any

__all__ = ["Assay", "app"]


def __getattr__(name: str) -> Any:
    """Return the deployment or the application, which import Ray and the server."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from assay_ray import deployment

    return getattr(deployment, name)
