"""The simulation of routing: its traces, its invariants, and its determinism."""

from collections import Counter
from typing import get_args

import pytest

from benchmarks.routing_replicas import ReplicaConfig, Sharing
from benchmarks.routing_simulation import ROUTERS, compare, figures_of, simulate, table
from benchmarks.routing_trace import TraceConfig, draw_trace, shared_prefix_cost

TRACE = TraceConfig(steps=2, prompts=8, group_size=4, step_seconds=1.0, burst_seconds=0.2)
CONFIG = ReplicaConfig()
COUNT = 3


def test_a_trace_depends_on_its_seed_alone() -> None:
    trace = draw_trace(TRACE, 1)
    assert trace == draw_trace(TRACE, 1) != draw_trace(TRACE, 2)
    assert len(trace) == TRACE.steps * TRACE.prompts * TRACE.group_size
    times = [arrival.at for arrival in trace]
    assert times == sorted(times)
    prompts = {(arrival.text, arrival.prompt) for arrival in trace}
    assert len(prompts) == len({text for text, _ in prompts}), "a text answers one prompt"
    assert len(prompts) < len(trace), "some completions are equal"


def test_a_shared_prompt_costs_its_tokens_once() -> None:
    trace = draw_trace(TRACE, 1)
    group = [arrival for arrival in trace if arrival.prompt == trace[0].prompt]
    responses = sum(arrival.tokens - arrival.prompt_tokens for arrival in group)
    cost = shared_prefix_cost([arrival.to_input() for arrival in group])
    assert cost == responses + group[0].prompt_tokens


@pytest.mark.parametrize("sharing", get_args(Sharing))
@pytest.mark.parametrize("routing", ROUTERS)
def test_every_request_is_answered_once(routing: str, sharing: Sharing) -> None:
    trace = draw_trace(TRACE, 1)
    result = simulate(trace, routing, sharing, COUNT, CONFIG)
    assert sum(result.sources.values()) == len(trace)
    assert min(result.latencies) > 0
    assert result.computed == result.sources["computed"]
    assert result.wasted == result.computed - result.distinct >= 0
    if routing == "by prompt" or sharing == "flight":
        assert result.wasted == 0


@pytest.mark.parametrize("routing", ROUTERS)
def test_one_replica_computes_nothing_twice(routing: str) -> None:
    result = simulate(draw_trace(TRACE, 1), routing, "none", 1, CONFIG)
    assert result.wasted == 0
    assert figures_of(result).imbalance == 1.0


def test_round_robin_spreads_requests_and_repeats_work() -> None:
    trace = draw_trace(TRACE, 1)
    repeated = simulate(trace, "round robin", "none", COUNT, CONFIG)
    counts = Counter(arrival.text for arrival in trace)
    assert 0 < repeated.wasted <= sum(min(count, COUNT) - 1 for count in counts.values())


def test_a_comparison_is_repeatable_and_has_a_row_for_each_pair() -> None:
    rows = compare(TRACE, CONFIG, COUNT, 2)
    assert rows == compare(TRACE, CONFIG, COUNT, 2)
    assert len(list(table(rows))) == 2 + len(ROUTERS) * len(get_args(Sharing))
