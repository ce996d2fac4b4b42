"""Readiness of a server that is starting: whether to go on waiting, and the error at the end."""

from __future__ import annotations

from collections.abc import Mapping

from assay_client._transport.retries import Failure
from assay_client.errors import (
    APIConnectionError,
    APIStatusError,
    AssayError,
    NotReadyError,
    Problem,
)

_LOADING = "loading"
_FAILED = "failed"


def is_final(failure: Failure) -> bool:
    """Return whether a server will not become ready: a model failed, and none is still loading."""
    states = [state.partition(":")[0] for _, state in _unready(failure)]
    return _FAILED in states and _LOADING not in states


def unready_error(failure: Failure, timeout: float) -> AssayError:
    """Return the error for a server that will not be ready, or is not after a wait of seconds."""
    waited = "no server will be ready"
    if not is_final(failure):
        waited = f"no server was ready within {timeout:g} s"
    if not isinstance(failure, APIStatusError):
        error = APIConnectionError(f"{waited}: {failure.message}")
        error.__cause__ = failure
        return error
    models = ", ".join(f"{name}: {state}" for name, state in _unready(failure))
    problem = Problem("model_not_ready", f"{waited}: {models or failure.detail}", failure.hint)
    return NotReadyError(problem, response=failure.response, body=failure.body)


def _unready(failure: Failure) -> list[tuple[str, str]]:
    """Return the models that are not ready and their states, as `/readyz` gives them."""
    body = failure.body if isinstance(failure, APIStatusError) else None
    models = body.get("models") if body else None
    if not isinstance(models, Mapping):
        return []
    return [(name, str(state)) for name, state in models.items() if state != "ready"]
