"""The sender of a request, as AccessMiddleware found it."""

from starlette.types import Scope

from assay.types import NO_CALLER, Caller


def caller_of(scope: Scope) -> Caller:
    """Return the sender of a request; below another middleware than ours, one with all rights."""
    caller: Caller = scope.get("caller", NO_CALLER)
    return caller
