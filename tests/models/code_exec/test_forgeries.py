"""Forgeries: programs that pass tests without solving the exercise, in each shape of tests.

The tests see the model from outside alone. A forgery passes no single test.
"""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from support.exercises import EMPTY, RIGHT, SHAPES, passed_share, passed_shares
from support.forged_acts import FORGED_ACTS
from support.forged_tests import FIND_ZERO, FORGED, HONEST, PLANTED, PLANTING
from support.forged_values import FORGED_FOR_ONE_TEST, FORGED_VALUES
from support.sandboxes import (
    card_with,
    load,
    sandbox_processes,
    skip_without_isolation,
    with_new_semaphore,
)
from support.tiers import only_nightly

from assay_models.families.code_exec import model as code_exec
from assay_models.families.code_exec.model import CodeExecModel

# A test that asks the program itself for the comparison has no verdict.
REFUSALS = {"unisolated_test"}
# One of each kind is tried by default, and all of them where slow tests are run.
SAMPLE = (
    "an object that agrees to everything",
    "an integer",
    "a mock that equals everything",
    "exit of the process when called",
    "another meaning of no operation of unittest",
    "noise in every file, when called",
    "reading frames",
)
FORGERIES = {**FORGED_VALUES, **FORGED_ACTS}
LONG = {
    "a length without a value in every file, when called",
    "another meaning of ways out, when called",
}
"""Forgeries that take half a minute each; the same without the call runs always."""


@pytest.fixture(scope="module")
def loaded() -> Iterator[CodeExecModel]:
    skip_without_isolation()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(code_exec, "find_broken_guarantee", lambda bounds: None)
        yield load(card_with(cpu_seconds=1, total_cpu_seconds=12, disk_mb=4, memory_mb=256))


@pytest.fixture
def model(loaded: CodeExecModel) -> CodeExecModel:
    """The model, for this test's event loop."""
    return with_new_semaphore(loaded, 2)


async def test_a_right_program_passes_every_test_in_every_shape(model: CodeExecModel) -> None:
    assert await passed_shares(model, RIGHT) == dict.fromkeys(SHAPES, 1.0)


async def test_a_program_that_returns_none_passes_no_test_in_any_shape(
    model: CodeExecModel,
) -> None:
    assert await passed_shares(model, EMPTY) == dict.fromkeys(SHAPES, 0.0)


async def check_forgery(name: str, model: CodeExecModel) -> None:
    """Check that a forgery passes no test, and leaves no process."""
    shares = await passed_shares(model, FORGERIES[name])
    assert {shape: share for shape, share in shares.items() if share not in {0.0, *REFUSALS}} == {}
    assert await asyncio.to_thread(sandbox_processes) == []


@pytest.mark.parametrize("name", SAMPLE)
async def test_a_forgery_of_each_kind_passes_no_test_in_any_shape(
    name: str, model: CodeExecModel
) -> None:
    await check_forgery(name, model)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=only_nightly) if name in LONG else name
        for name in FORGERIES
        if name not in SAMPLE
    ],
)
async def test_a_forgery_passes_no_test_in_any_shape(name: str, model: CodeExecModel) -> None:
    await check_forgery(name, model)


@pytest.mark.parametrize("name", FORGED_FOR_ONE_TEST)
async def test_a_program_made_for_one_test_does_not_pass_it(
    name: str, model: CodeExecModel
) -> None:
    program, test = FORGED_FOR_ONE_TEST[name]
    assert await passed_share(model, program, {"tests": test}) in {0.0, *REFUSALS}


async def shares_of(
    model: CodeExecModel, runs: Mapping[str, tuple[str, Mapping[str, Any]]]
) -> dict[str, float | str]:
    """Return the share that each program passes of its tests, or the error's code."""
    shares = [passed_share(model, program, fields) for program, fields in runs.values()]
    return dict(zip(runs, await asyncio.gather(*shares), strict=True))


async def test_a_module_that_the_program_has_left_is_never_run_by_the_judge(
    model: CodeExecModel,
) -> None:
    runs = {name: (PLANTING, {"tests": (test,)}) for name, test in PLANTED.items()}
    shares = await shares_of(model, runs)
    assert {name: share for name, share in shares.items() if share not in {0.0, *REFUSALS}} == {}


async def test_a_program_does_not_answer_for_what_judges_it(model: CodeExecModel) -> None:
    shares = await shares_of(model, FORGED)
    assert {name: share for name, share in shares.items() if share not in {0.0, *REFUSALS}} == {}


async def test_a_right_program_passes_or_has_no_verdict_where_a_test_shares_state(
    model: CodeExecModel,
) -> None:
    runs = {
        name: (program or RIGHT, {"tests": (test,)}) for name, (program, test, _) in HONEST.items()
    }
    expected = {name: 1.0 if passes else "unisolated_test" for name, (*_, passes) in HONEST.items()}
    assert await shares_of(model, runs) == expected


async def test_a_function_of_the_prompt_is_the_tests_own(model: CodeExecModel) -> None:
    _, fields = FORGED["a function of the prompt"]
    assert await passed_share(model, FIND_ZERO, fields) == 1.0
