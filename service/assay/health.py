"""Health: what a model's state means to those who start, route to and replace this process.

An engine is not a part of this process, and its replicas share it: none of them is restarted, and
none leaves a balancer, because of it.
"""

from assay.served_model import Ready, ServedModel


def is_started(served: ServedModel) -> bool:
    """Return whether a model is loaded; one that an engine computes is, proven or not."""
    return isinstance(served.state, Ready)


async def is_available(served: ServedModel, state: str) -> bool:
    """Return whether requests for a model belong here.

    They do while it computes. One that an engine computes stays available once it was proven: of
    its scores those that are cached are served, and requests for others get the reason.

    Args:
        served: the model.
        state: its state, as readiness shows it.
    """
    if state == "ready":
        return True
    ready = served.state
    if not served.was_proven or not isinstance(ready, Ready):
        return False
    return await _fault(served, ready) is None


async def fault(served: ServedModel) -> str | None:
    """Wait until a model is loaded; return what only a new process mends in it, None if nothing.

    An engine that is away, or not proven, is no such fault.
    """
    await served.loaded()
    state = served.state
    if served.card.engine is not None and isinstance(state, Ready):
        return await _fault(served, state)
    return None if await served.is_computing() else served.failure or served.condition


async def _fault(served: ServedModel, ready: Ready) -> str | None:
    if not ready.batcher.alive:
        return "not computing"
    return None if await served.is_current() else served.condition
