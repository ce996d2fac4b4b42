"""Clusters of Ray, one for each of Serve's proxies."""

from collections.abc import Iterator

import pytest

from benchmarks.ray_cluster import Cluster, running_cluster


@pytest.fixture(scope="module", params=["python_proxy", "haproxy"])
def cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """Yield a cluster; a test deploys into it what it needs."""
    pytest.importorskip("ray.serve", reason="needs Ray: make .venv/ray")
    folder = tmp_path_factory.mktemp("ray")
    with running_cluster(haproxy=request.param == "haproxy", folder=folder) as running:
        yield running
