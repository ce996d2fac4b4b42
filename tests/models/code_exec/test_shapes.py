"""Shapes of tests: canonical programs of HumanEval and MBPP pass in each, others do not."""

import asyncio
from collections.abc import Iterator

import pytest
from support.exercises import passed_share
from support.sandboxes import load, skip_without_isolation, with_new_semaphore
from support.tiers import only_nightly
from support.translation import PROBLEMS, problems, shapes_of

from assay_models.families.code_exec import model as code_exec
from assay_models.families.code_exec.model import CodeExecModel

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not PROBLEMS.exists(), reason=f"{PROBLEMS} is absent"),
]
# Every shard holds problems of both sets.
SHARDS = 60


@pytest.fixture(scope="module")
def loaded() -> Iterator[CodeExecModel]:
    skip_without_isolation()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(code_exec, "find_broken_guarantee", lambda bounds: None)
        yield load()


@pytest.fixture
def model(loaded: CodeExecModel) -> CodeExecModel:
    """The model, for this test's event loop."""
    return with_new_semaphore(loaded, 2)


async def check_problems(model: CodeExecModel, first: int, step: int) -> None:
    """Check that the canonical program alone passes, in each shape of the problems' tests."""
    expected: dict[tuple[str, str, str], float] = {}
    runs = []
    for problem in problems()[first::step]:
        programs = {"canonical": problem.program, "none": problem.empty_program}
        for shape, (fields, end) in shapes_of(problem).items():
            for kind, program in programs.items():
                expected[problem.name, shape, kind] = float(kind == "canonical")
                runs.append(passed_share(model, program + end, fields))
    shares = dict(zip(expected, await asyncio.gather(*runs), strict=True))
    assert shares
    assert {run: share for run, share in shares.items() if share != expected[run]} == {}


async def test_canonical_programs_of_a_sample_pass_in_every_shape_and_none_does_not(
    model: CodeExecModel,
) -> None:
    await check_problems(model, 3, 491)


@pytest.mark.slow
async def test_canonical_programs_of_a_shard_pass_in_every_shape_and_none_does_not(
    model: CodeExecModel,
) -> None:
    await check_problems(model, 0, SHARDS)


@only_nightly
@pytest.mark.slow
@pytest.mark.parametrize("shard", range(1, SHARDS))
async def test_all_canonical_programs_pass_in_every_shape_and_none_does_not(
    shard: int, model: CodeExecModel
) -> None:
    await check_problems(model, shard, SHARDS)
