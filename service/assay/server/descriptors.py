"""File descriptors: their limit, and the number of connections that it leaves room for."""

import logging
import resource

logger = logging.getLogger(__name__)

# For files, Redis, webhooks, and the processes that run programs.
MAX_RESERVE = 128


def connection_bound(max_connections: int) -> int:
    """Raise the soft limit of descriptors as far as needed; return how many connections fit.

    Args:
        max_connections: the wanted bound.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return max_connections
    wanted = max_connections + MAX_RESERVE
    limit = max(soft, wanted if hard == resource.RLIM_INFINITY else min(wanted, hard))
    if limit > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    bound = min(max_connections, limit - min(MAX_RESERVE, limit // 2))
    if bound < max_connections:
        logger.warning(
            "the limit of file descriptors (ulimit -n) is %d: at most %d connections, and not "
            "ASSAY_MAX_CONNECTIONS=%d",
            *(limit, bound, max_connections),
        )
    return bound
