"""The deployment: each replica builds the app from its own environment and serves it."""

import asyncio
import os
import sys
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

from assay.api.components import components_of
from assay.app import create_app
from assay.cli.memory import bound_kernel_caches
from assay.cli.serve import SWITCH_SECONDS
from assay.health import fault
from assay.settings import is_client_variable, read_settings
from assay_ray.autoscaling import QUEUE_TOKENS
from assay_ray.in_process import Reply, call_app

# HAProxy balances by itself and refuses a router; it gets the same affinity by its algorithm.
HAS_HAPROXY = os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "1"
ROUTER = "ray.serve.experimental.consistent_hash_router.ConsistentHashRouter"
ROUTING: dict[str, Any] = (
    {} if HAS_HAPROXY else {"request_router_config": {"request_router_class": ROUTER}}
)


@serve.deployment(
    name="assay",
    # Assay's own admission decides, in tokens; these bounds only keep a flood of connections out.
    max_ongoing_requests=4096,
    max_queued_requests=8192,
    backpressure_config={"status_code": 429, "retry_after_s": 1},
    # Both servers' drains: Serve's for 30 s behind HAProxy, then ASSAY_DRAIN_TIMEOUT.
    graceful_shutdown_timeout_s=70,
    graceful_shutdown_wait_loop_s=1,
    health_check_period_s=10,
    health_check_timeout_s=15,
    max_surge_percent=50,  # without it a replica stops before its successor starts
    max_constructor_retry_count=3,
    ray_actor_options={"num_cpus": 1},
    autoscaling_config=AutoscalingConfig(
        min_replicas=1,
        max_replicas=8,
        upscale_delay_s=5,
        downscale_delay_s=300,
        look_back_period_s=15,
        policy=AutoscalingPolicy(policy_function="assay_ray.autoscaling:QueueTokensPolicy"),
    ),
    **ROUTING,
)
@serve.ingress()
class Assay:
    """One replica: the app of `create_app`, with the settings of its `ASSAY_*` variables."""

    async def __serve_build_asgi_app__(self) -> FastAPI:
        """Build the app. Serve calls this once, and starts what it returns.

        Raises:
            SettingsError: a variable cannot be used; the deployment fails with this text.
        """
        bound_kernel_caches(os.environ)
        sys.setswitchinterval(SWITCH_SECONDS)
        # A cluster's nodes often have the trainers' variables too.
        own = {name: text for name, text in os.environ.items() if not is_client_variable(name)}
        self.server = create_app(read_settings(own))
        # Built here, because the first request would hold the event loop.
        await asyncio.to_thread(self.server.openapi)
        return self.server

    async def check_health(self) -> None:
        """Check what only a new replica mends: Serve replaces one for which this raises.

        The first check waits until the models are loaded, so that a new replica gets no request
        before, and the old one stays if they cannot be loaded. An engine that is away, shadows, and
        models that are being loaded while the replica serves, are no fault of the replica.

        Raises:
            RuntimeError: a model failed, or does not compute here.
        """
        required = components_of(self.server).lifecycle.table.required()
        reasons = await asyncio.gather(*map(fault, required))
        for model, reason in zip(required, reasons, strict=True):
            if reason is not None:
                raise RuntimeError(f"{model.id}: {reason}")

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Return the waiting tokens, for the policy."""
        return {QUEUE_TOKENS: components_of(self.server).lifecycle.table.scaling_tokens()}

    async def request(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes = b""
    ) -> Reply:
        """Serve a request of a deployment handle: it goes the same way as one over HTTP.

        Args:
            method: of HTTP.
            path: such as `/v1/score`.
            headers: such as `Authorization` and `X-Assay-Timeout-Ms`.
            body: JSON.

        Returns:
            Status, headers and body.
        """
        return await call_app(self.server, method, path, headers, body)


app = Assay.bind()  # type: ignore[attr-defined] # a deployment since its decorator
