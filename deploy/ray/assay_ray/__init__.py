"""Assay on Ray Serve: `serve run assay_ray:app`."""

from assay_ray.deployment import Assay, app

__all__ = ["Assay", "app"]
