"""Components: the parts that `create_app` builds and the routes use."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI

from assay.api.jobs import Jobs
from assay.metrics import Metrics
from assay.runs.monitor import RunMonitor
from assay.runs.subscribers import Subscribers
from assay.scoring.service import ScoringService


@dataclass(frozen=True, slots=True)
class Components:
    """The parts of one process that the routes and the command line use.

    `abort` settles all waiting items at once with `ShuttingDown`.
    """

    service: ScoringService
    metrics: Metrics
    runs: RunMonitor
    subscribers: Subscribers
    jobs: Jobs[Any]
    abort: Callable[[], Awaitable[None]]


def components_of(app: FastAPI) -> Components:
    """Return the components that `create_app` stored in the app's state."""
    components = app.state.components
    assert isinstance(components, Components)
    return components
