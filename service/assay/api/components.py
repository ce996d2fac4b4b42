"""Components: the parts that `create_app` builds and the routes use."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI

from assay.api.body_budget import BodyBudget
from assay.api.jobs import Jobs
from assay.cache.redis_state import RedisState
from assay.lifecycle.lifecycle import ModelLifecycle
from assay.metrics import Metrics
from assay.runs.monitor import RunMonitor
from assay.runs.subscribers import Subscribers
from assay.scoring.service import ScoringService
from assay.scoring.shadowing import Shadowing


@dataclass(slots=True)
class Shutdown:
    """The process's shutdown. From its announcement, /readyz answers 503.

    A forced one does not wait for admitted items.
    """

    is_announced: bool = False
    is_forced: bool = False


@dataclass(frozen=True, slots=True)
class Components:
    """The parts of one process that the routes and the command line use.

    `abort` settles all waiting items at once with `ShuttingDown`. `redis` is None if no Redis is
    set.
    """

    service: ScoringService
    lifecycle: ModelLifecycle
    shadowing: Shadowing
    metrics: Metrics
    runs: RunMonitor
    subscribers: Subscribers
    jobs: Jobs[Any]
    abort: Callable[[], Awaitable[None]]
    bodies: BodyBudget
    redis: RedisState | None = None
    shutdown: Shutdown = field(default_factory=Shutdown)


def components_of(app: FastAPI) -> Components:
    """Return the components that `create_app` stored in the app's state."""
    components = app.state.components
    assert isinstance(components, Components)
    return components
