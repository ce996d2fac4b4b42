"""The scope that each route needs, and the route class that requires it."""

from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from assay.errors import Forbidden
from assay.types import NO_CALLER, Caller, Scope

ANY_KEY = None
"""Any accepted key will do, and no key where the path needs none."""

_SCORING = """
/score /v1/score /v1/models/{model}/score /v1/best-of-n
/classify /pooling /predict /rerank /v1/embeddings /v1/rerank /v2/rerank /get_reward
/v1/score/evaluation /verify /seed_session /aggregate_metrics
/ng-rollout/{rollout}/verify /ng-rollout/{rollout}/seed_session
/v2/models/{model}/infer /v2/models/{model}/versions/{version}/infer
/compat/cohere/{model}/v1/rerank /compat/cohere/{model}/v2/rerank /compat/jina/{model}/v1/rerank
/compat/llamafactory/{model} /compat/openrlhf/{model} /compat/openrlhf/{model}/get_reward
/compat/nemo-gym/{model}/verify /compat/nemo-gym/{model}/seed_session
/compat/nemo-gym/{model}/aggregate_metrics /compat/nemo-gym/{model}/ng-rollout/{rollout}/verify
/compat/nemo-gym/{model}/ng-rollout/{rollout}/seed_session
/compat/reward-kit/{model}/reward /compat/roll/{model}/submit
/compat/sglang/{model}/classify /compat/sglang/{model}/v1/embeddings
/compat/slime/{model} /compat/slime/{model}/channels
/compat/tei/{model}/predict /compat/tei/{model}/rerank
/compat/vllm/{model}/classify /compat/vllm/{model}/pooling /compat/vllm/{model}/rerank
/compat/vllm/{model}/v1/embeddings /compat/vllm/{model}/v1/rerank
"""
_READING = """
/metrics /v1/runs /v1/runs/{run} /v1/runs/{run}/health /v1/runs/{run}/series /v1/runs/{run}/chart
/v1/runs/{run}/events
"""
# What a client asks of a server before it scores; the probes and the pages, if they need a key.
_ASKING = """
/version /v1/models /v1/models/{model} /v2/models/{model}/ready
/v2/models/{model}/versions/{version}/ready /reverify_mode /compat/nemo-gym/{model}/reverify_mode
/healthz /livez /health /ping /v2/health/live /readyz /v2/health/ready /startupz
/ /page/{file}
"""
# Editing and deleting needs the scope, and that the run is the key's own.
_RECORDING = ("POST /v1/runs/{run}/telemetry", "POST /v1/runs/{run}/gold")
_EDITING = ("PATCH /v1/runs/{run}", "DELETE /v1/runs/{run}")

_ADMINISTRATION = (
    "POST /v1/models",
    "POST /v1/models/{model}/promote",
    "DELETE /v1/models/{model}",
)

SCOPE_OF: Mapping[str, Scope | None] = {
    **{f"POST {path}": "score" for path in _SCORING.split()},
    "GET /compat/roll/{model}/result": "score",
    **{f"GET {path}": "read" for path in _READING.split()},
    **dict.fromkeys((*_RECORDING, *_EDITING), "record"),
    **dict.fromkeys(_ADMINISTRATION, "admin"),
    **{f"GET {path}": ANY_KEY for path in _ASKING.split()},
}
"""The scope that a key needs for each route."""


class ScopedRoute(APIRoute):
    """A route that refuses keys without its scope.

    Raises:
        LookupError: the route is not in `SCOPE_OF`.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        self.needed_scope = scope_of(self.methods or (), path)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler of requests; it refuses keys without the scope before all else."""
        handler = self.scoped_handler()

        async def answer(request: Request) -> Response:
            require_scope(self.needed_scope, request.scope.get("caller", NO_CALLER))
            return await handler(request)

        return answer

    def scoped_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler of requests whose key has the scope: FastAPI's own."""
        return super().get_route_handler()


def scope_of(methods: Iterable[str], path: str) -> Scope | None:
    """Return the scope that a route needs; None if any key will do.

    Raises:
        LookupError: the route is not in `SCOPE_OF`, or its methods need different ones.
    """
    plain = path.replace(":path}", "}")
    needed = {SCOPE_OF[f"{method} {plain}"] for method in methods}
    if len(needed) != 1:
        raise LookupError(f"{path}: one scope is needed, not {len(needed)}")
    return needed.pop()


def require_scope(needed: Scope | None, caller: Caller) -> None:
    """Check that a request's key has a scope.

    Raises:
        Forbidden: it does not.
    """
    if needed is not None and needed not in caller.scopes:
        raise Forbidden(
            f"the API key {caller.name} does not have the scope {needed!r}",
            hint=f"its scopes: {', '.join(sorted(caller.scopes))}",
            title="Scope required",
        )
