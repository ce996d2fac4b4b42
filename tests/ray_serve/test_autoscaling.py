"""The autoscaling policy, from reports as Serve's controller passes them on."""

from types import SimpleNamespace
from typing import Any

import pytest

from assay_ray.autoscaling import QueueTokensPolicy


def replicas(reports: dict[str, Any], *, target: int = 2, tokens_per_replica: int = 1000) -> int:
    context = SimpleNamespace(aggregated_metrics=reports, target_num_replicas=target)
    return QueueTokensPolicy(tokens_per_replica)(context)[0]


@pytest.mark.parametrize(
    ("reports", "expected"),
    [
        ({"a": 0.0, "b": 0.0}, 0),  # Serve applies the deployment's minimum
        ({"a": 1.0}, 1),
        ({"a": 1000.0}, 1),
        ({"a": 1000.5}, 2),
        ({"a": 900.0, "b": 900.0, "c": 900.0}, 3),
        ({"a": 1e9}, 1_000_000),
    ],
)
def test_policy_with_reports_returns_replicas_for_all_waiting_tokens(
    reports: dict[str, float], expected: int
) -> None:
    assert replicas({"queue_tokens": reports}) == expected


@pytest.mark.parametrize("reports", [{}, {"queue_tokens": {}}, {"another": {"a": 5.0}}])
def test_policy_without_a_report_keeps_the_replicas(reports: dict[str, Any]) -> None:
    assert replicas(reports, target=5) == 5


@pytest.mark.parametrize("tokens", [0, -1])
def test_policy_of_no_tokens_a_replica_is_refused(tokens: int) -> None:
    with pytest.raises(ValueError, match="positive"):
        QueueTokensPolicy(tokens)
