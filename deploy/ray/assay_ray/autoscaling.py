"""The autoscaling policy: as many replicas as the waiting tokens need."""

import math
from typing import Any

QUEUE_TOKENS = "queue_tokens"
"""The name under which a replica reports its waiting tokens."""


class QueueTokensPolicy:
    """Policy of Serve's autoscaling, which the controller calls.

    Tokens are counted rather than requests, because items differ in length by a factor of
    thousands. Serve itself applies the deployment's bounds and delays to the result.

    Args:
        tokens_per_replica: waiting tokens for which one replica is enough.

    Raises:
        ValueError: it is not positive.
    """

    def __init__(self, tokens_per_replica: int = 65_536) -> None:
        if tokens_per_replica <= 0:
            raise ValueError("tokens_per_replica must be positive, such as 65536")
        self._tokens_per_replica = tokens_per_replica

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        """Return the number of replicas, and no state.

        Without a report of any replica the number stays: silence does not mean an empty queue.

        Args:
            context: Serve's `AutoscalingContext`.
        """
        reports: dict[Any, float] = context.aggregated_metrics.get(QUEUE_TOKENS) or {}
        if not reports:
            return context.target_num_replicas, {}
        return math.ceil(sum(reports.values()) / self._tokens_per_replica), {}
