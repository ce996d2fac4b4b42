"""Splitting of calls: each row gets its own number or its own error, in few calls."""

import asyncio
import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.engine_calls import vllm_engine
from support.engine_cards import codes_of, raws_of
from support.engine_servers import BAD_TOKEN, EngineServer, Received, vllm

from assay_models.base import ItemError, Raw
from assay_models.engines.breaker import FAILURES_TO_OPEN
from assay_models.engines.errors import EngineCode, EngineError, bad_reply
from assay_models.engines.splitting import compute_rows


def refusal(code: EngineCode = "engine_refused") -> EngineError:
    return EngineError(code, "for a test", may_be_one_row=True)


async def split(
    rows: Sequence[int], bad: set[int], error: EngineError, max_rows: int = 1000
) -> tuple[list[Raw | ItemError], list[int]]:
    """Return the results, and the sizes of the calls."""
    sizes = []

    async def compute(part: Sequence[int]) -> list[Raw]:
        sizes.append(len(part))
        if bad & set(part):
            raise error
        return [(float(row),) for row in part]

    results = await compute_rows(
        rows, compute, size=lambda row: 1, max_rows=max_rows, max_tokens=10_000
    )
    return results, sizes


@given(
    st.integers(1, 200).flatmap(
        lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1), max_size=n))
    )
)
def test_rows_with_any_bad_ones_get_their_own_results_in_few_calls(
    case: tuple[int, set[int]],
) -> None:
    count, bad = case
    results, sizes = asyncio.run(split(range(count), bad, refusal()))
    for row, result in enumerate(results):
        if row in bad:
            assert isinstance(result, ItemError)
            assert result.code == "engine_refused"
        else:
            assert result == (float(row),)
    assert len(results) == count
    assert len(sizes) <= 1 + 2 * len(bad) * math.ceil(math.log2(count))
    assert len(sizes) <= 2 * count - 1


@given(st.integers(2, 200), st.data())
def test_bad_row_alone_never_causes_failures_enough_to_open_a_breaker(
    count: int, data: st.DataObject
) -> None:
    bad = data.draw(st.integers(0, count - 1))
    outcomes = []

    async def compute(part: Sequence[int]) -> list[Raw]:
        outcomes.append(bad not in part)
        if bad in part:
            raise bad_reply("for a test")
        return [(float(row),) for row in part]

    asyncio.run(
        compute_rows(range(count), compute, size=lambda _: 1, max_rows=count, max_tokens=count)
    )
    failures = "".join("." if is_success else "x" for is_success in outcomes)
    assert max(map(len, failures.split("."))) < FAILURES_TO_OPEN


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60), st.integers(1, 8), st.integers(1, 90))
def test_calls_keep_within_the_limits_and_in_order(
    sizes: list[int], max_rows: int, max_tokens: int
) -> None:
    calls = []

    async def compute(part: Sequence[tuple[int, int]]) -> list[Raw]:
        calls.append(part)
        return [(float(number),) for number, _ in part]

    rows = list(enumerate(sizes))
    results = asyncio.run(
        compute_rows(
            rows, compute, size=lambda row: row[1], max_rows=max_rows, max_tokens=max_tokens
        )
    )
    assert results == [(float(number),) for number, _ in rows]
    assert [row for call in calls for row in call] == rows
    for call in calls:
        assert len(call) <= max_rows
        assert len(call) == 1 or sum(size for _, size in call) <= max_tokens


async def test_call_that_no_row_causes_is_not_split() -> None:
    error = EngineError("engine_unavailable", "for a test")
    with pytest.raises(EngineError) as raised:
        await split(range(64), {3}, error)
    assert raised.value is error


async def test_engine_that_fails_on_every_row_raises() -> None:
    with pytest.raises(EngineError) as raised:
        await split(range(4), {0, 1, 2, 3}, refusal("engine_bad_reply"))
    assert raised.value.code == "engine_bad_reply"


async def test_engine_that_fails_on_some_rows_gives_them_errors() -> None:
    results, _ = await split(range(8), {5}, refusal("engine_bad_reply"))
    assert codes_of(results) == {5: "engine_bad_reply"}


async def test_row_that_makes_a_server_fail_spoils_no_other_row() -> None:
    """vLLM answers 500 to a whole call if one of its numbers is NaN."""

    def fails(server: EngineServer, request: Received) -> tuple[int, object]:
        if any(7 in row for row in request.body["input"]):
            return 500, {"error": {"message": "Internal Server Error"}}
        return vllm(server, request)

    async with EngineServer(fails).listening() as server:
        engine = vllm_engine(server.url)
        rows = [[number] for number in range(32)]
        results = await engine.classify(rows)
        assert codes_of(results) == {7: "engine_unavailable"}
        good = [number for number in range(32) if number != 7]
        assert [results[number] for number in good] == raws_of([[number] for number in good])
        await engine.close()


async def test_engine_that_is_broken_gets_few_calls_for_many_rows() -> None:
    async with EngineServer(vllm, status=500).listening() as server:
        engine = vllm_engine(server.url)
        with pytest.raises(EngineError):
            await engine.classify([[number] for number in range(64)])
        assert len(server.posts) == FAILURES_TO_OPEN
        await engine.close()


async def test_refused_rows_of_a_real_server_are_found_in_few_calls() -> None:
    async with EngineServer(vllm).listening() as server:
        engine = vllm_engine(server.url)
        rows = [[number] for number in range(64)]
        rows[10] = rows[41] = [BAD_TOKEN]
        results = await engine.classify(rows)
        assert codes_of(results) == {10: "engine_refused", 41: "engine_refused"}
        assert len(server.posts) <= 1 + 2 * 2 * 6
        await engine.close()
