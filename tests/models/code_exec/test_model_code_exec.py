"""The execution family: its inputs, the rule for responses without a program, and its scores."""

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError
from support.sandboxes import CARD, card_with, load, skip_without_isolation, with_new_semaphore

from assay_models.base import ItemError, Options, Prepared, Raw, Score
from assay_models.card import CardError
from assay_models.extraction import MAX_CHARACTERS
from assay_models.families.code import programs
from assay_models.families.code_exec import model as code_exec
from assay_models.families.code_exec.exchange import EXCEPTIONS
from assay_models.families.code_exec.model import CodeExecModel
from assay_models.families.code_exec.sandbox import (
    OUTCOMES,
    ExecutionResult,
    Outcome,
    Sandbox,
    SandboxFailed,
)
from assay_models.items import CodeExecItem
from assay_models.registry import FAMILIES, family_of

PROGRAM = "def double(x):\n    return 2 * x"
FENCED = f"```python\n{PROGRAM}\n```"
PAIRS = [{"stdin": "1\n", "stdout": "2\n"}, {"stdin": "2\n", "stdout": "4\n"}]
TESTS = ("assert double(1) == 2", "assert double(2) == 5")
RAW = Options(raw=True)
ENDED_BY: dict[Outcome, str] = {"error": "ZeroDivisionError", "memory": "MemoryError"}


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> CodeExecModel:
    """The model on a machine where the self-test succeeds."""
    monkeypatch.setattr(code_exec, "find_broken_guarantee", lambda bounds: None)
    return load()


def prepare(
    model: CodeExecModel, response: str = FENCED, tests: Any = TESTS, **more: Any
) -> Prepared:
    return model.prepare([CodeExecItem(response=response, tests=tests, **more)], Options())


def raw_of(*outcomes: Outcome) -> Raw:
    numbers = [
        (float(OUTCOMES.index(outcome)), 0.25, float(EXCEPTIONS.index(ENDED_BY.get(outcome, ""))))
        for outcome in outcomes
    ]
    share = outcomes.count("pass") / len(outcomes)
    return (share, *(number for result in numbers for number in result))


def finish(model: CodeExecModel, *outcomes: Outcome, options: Options = Options()) -> Score:  # noqa: B008
    (score,) = model.finish(prepare(model), [raw_of(*outcomes)], options)
    return score


def test_the_score_is_one_only_if_all_tests_pass_and_the_raw_is_the_share(
    model: CodeExecModel,
) -> None:
    half = finish(model, "pass", "fail")
    assert (half.score, half.raw) == (0.0, 0.5)
    assert half.channels == {"passed": 0.5, "all": 0.0}
    whole = finish(model, "pass", "pass")
    assert (whole.score, whole.raw) == (1.0, 1.0)
    assert whole.channels == {"passed": 1.0, "all": 1.0}
    assert finish(model, "pass", "fail", options=RAW).score == 0.5


def test_the_details_hold_each_outcome_and_quote_no_text(model: CodeExecModel) -> None:
    score = finish(model, "pass", "timeout", "error", "memory")
    assert score.details == {
        "extraction": "ok",
        "language": "python",
        "tests": [
            {"outcome": "pass", "seconds": 0.25},
            {"outcome": "timeout", "seconds": 0.25},
            {"outcome": "error", "seconds": 0.25, "exception": "ZeroDivisionError"},
            {"outcome": "memory", "seconds": 0.25, "exception": "MemoryError"},
        ],
    }
    assert "double" not in repr(score)


@pytest.mark.parametrize(
    ("response", "details"),
    [
        ("I would rather not.", {"extraction": "no_block"}),
        ("```\nf(1)\n```\n```\nf(2)\n```", {"extraction": "multiple_blocks"}),
        ("```\ndef (\n```", {"extraction": "syntax_error", "language": "python"}),
    ],
)
def test_a_response_without_a_program_gets_zero_by_rule(
    model: CodeExecModel, response: str, details: dict[str, str]
) -> None:
    prepared = prepare(model, response)
    assert prepared.inputs == ()
    for options in (Options(), RAW):
        assert model.finish(prepared, [], options) == [
            Score(
                0.0,
                None,
                channels={"passed": 0.0, "all": 0.0},
                flags=("invalid_code",),
                details=details,
            )
        ]


def test_the_key_depends_on_the_program_and_its_tests(model: CodeExecModel) -> None:
    key = prepare(model).inputs[0].key
    assert prepare(model, f"Easy.\n{FENCED}", prompt="Double it.").inputs[0].key == key
    assert prepare(model, tests=list(TESTS)).inputs[0].key == key
    others = (TESTS[::-1], TESTS[:1], "\n".join(TESTS))
    keys = {key, *(prepare(model, tests=tests).inputs[0].key for tests in others)}
    assert len(keys) == 4
    assert prepare(model, FENCED.replace("2", "3")).inputs[0].key not in keys


def test_the_block_that_the_tests_or_the_prompt_ask_for_is_run(model: CodeExecModel) -> None:
    other = "def halve(x):\n    return x / 2"
    two = f"{FENCED}\n\n```python\n{other}\n```"
    assert prepare(model, two).inputs[0].payload.program == PROGRAM
    assert prepare(model, two, "assert halve(2) == 1").inputs[0].payload.program == other
    asked = prepare(model, two, None, io=PAIRS, prompt="Write a function halve(x).")
    assert asked.inputs[0].payload.program == other
    assert asked.details["chosen_by"] == "defines_asked"


def test_pairs_of_input_and_output_are_tests_of_their_own(model: CodeExecModel) -> None:
    prepared = prepare(model, tests=None, io=PAIRS)
    assert prepared.inputs[0].payload == (PROGRAM, (), (("1\n", "2\n"), ("2\n", "4\n")), (), "")
    both = prepare(model, io=PAIRS)
    assert both.inputs[0].payload.tests == TESTS
    named = [{"input": "1\n", "output": "2\n"}, {"input": "2\n", "output": "4\n"}]
    assert prepare(model, tests=None, io=named).inputs[0].key == prepared.inputs[0].key
    assert len({prepared.inputs[0].key, both.inputs[0].key, prepare(model).inputs[0].key}) == 3


def test_the_entry_point_is_the_given_name_or_the_last_stub_of_the_prompt(
    model: CodeExecModel,
) -> None:
    stubs = "def halve(x):\n    pass\n\ndef double(x):\n    pass\n"
    check = "def check(candidate):\n    assert candidate(1) == 2"
    asked = prepare(model, tests=check, prompt=stubs).inputs[0].payload
    assert asked.entry_points[:2] == ("double", "halve")
    given = prepare(model, tests=check, prompt=stubs, entry_point="halve").inputs[0].payload
    assert given.entry_points == ("halve",)
    assert prepare(model, tests=check).inputs[0].payload.entry_points == ()
    assert prepare(model, prompt=stubs).inputs[0].payload.entry_points == ()


def test_the_entry_point_decides_between_blocks(model: CodeExecModel) -> None:
    check = "def check(candidate):\n    assert candidate(2) == 1"
    other = "def halve(x):\n    return x / 2"
    two = f"{FENCED}\n\n```python\n{other}\n```"
    for asked in ({"entry_point": "halve"}, {"prompt": "def halve(x):\n    pass\n"}):
        assert prepare(model, two, check, **asked).inputs[0].payload.program == other


@pytest.mark.parametrize("name", ["", "a.b", "f()", "2f", "x" * 257])
def test_an_entry_point_that_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="entry_point"):
        CodeExecItem(response=FENCED, tests=TESTS, entry_point=name)


def test_pairs_that_expect_no_output_are_an_item_error(model: CodeExecModel) -> None:
    with pytest.raises(ItemError) as caught:
        prepare(model, tests=None, io=[{"stdin": "1\n", "stdout": " \n"}])
    assert caught.value.code == "vacuous_tests"


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="this Python knows the newer syntax")
def test_a_program_for_a_newer_python_is_an_item_error_and_no_zero(model: CodeExecModel) -> None:
    with pytest.raises(ItemError) as caught:
        prepare(model, "```python\ndef double[T](x: T) -> T:\n    return 2 * x\n```")
    assert caught.value.code == "newer_python"
    assert "double" not in caught.value.detail


@pytest.mark.parametrize("fields", [{}, {"tests": None}, {"tests": None, "io": None}])
def test_an_item_without_tests_and_pairs_is_refused_at_its_field(fields: dict[str, None]) -> None:
    with pytest.raises(ValidationError, match="give `tests`, or `io`") as caught:
        CodeExecItem.model_validate({"response": FENCED, **fields})
    assert caught.value.errors()[0]["loc"] == ("tests",)


def test_tests_given_as_one_text_are_one_test(model: CodeExecModel) -> None:
    assert prepare(model, tests="\n".join(TESTS)).inputs[0].payload.tests == ("\n".join(TESTS),)


@pytest.mark.parametrize("test", ["", "pass", "# nothing", "'a text'", "assert (", "return 1"])
def test_an_invalid_or_empty_test_is_an_item_error(model: CodeExecModel, test: str) -> None:
    with pytest.raises(ItemError) as caught:
        prepare(model, tests=[TESTS[0], test])
    assert caught.value.code == "invalid_item"
    assert caught.value.detail.startswith("tests[1] ")


def test_a_program_that_is_too_long_is_an_item_error_and_never_truncated(
    model: CodeExecModel,
) -> None:
    short = replace(model, max_tokens=20)
    for options in (Options(), Options(truncation="right")):
        with pytest.raises(ItemError) as caught:
            short.prepare([CodeExecItem(response=FENCED, tests=TESTS)], options)
        assert caught.value.code == "input_too_long"
    with pytest.raises(ItemError) as caught:
        prepare(model, f"```\n{'x = 1;' * MAX_CHARACTERS}\n```")
    assert caught.value.code == "input_too_long"


def test_a_token_is_four_bytes(model: CodeExecModel) -> None:
    inputs = [prepare(model).inputs[0], prepare(model, tests=TESTS[:1]).inputs[0]]
    assert inputs[0].tokens == (len(inputs[0].key) + 3) // 4
    assert model.cost(inputs) == inputs[0].tokens + inputs[1].tokens


@pytest.mark.parametrize(
    "options",
    [
        {"extraction": "raw_code"},
        {"cpu_seconds": 5},
        {"total_cpu_seconds": 20},
        {"wall_seconds": 50.0},
        {"memory_mb": 256},
        {"processes": 2},
        {"disk_mb": 1},
    ],
)
def test_the_fingerprint_changes_with_every_bound(
    model: CodeExecModel, options: dict[str, Any]
) -> None:
    assert load(card_with(**options)).fingerprint != model.fingerprint
    assert load(card_with(at_once=1)).fingerprint == model.fingerprint


def test_the_fingerprint_changes_with_python_and_isolation(
    model: CodeExecModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        code_exec, "choose_sandbox", lambda card, options: replace(model.sandbox, is_isolated=False)
    )
    assert load().fingerprint != model.fingerprint
    monkeypatch.setattr(code_exec, "choose_sandbox", lambda card, options: model.sandbox)
    assert load().fingerprint == model.fingerprint
    monkeypatch.setattr(programs, "parser_versions", lambda *_: "CPython 4.0.0")
    assert load().fingerprint != model.fingerprint


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cpu": 3}, "options.cpu: "),
        ({"isolation": "none"}, "options.isolation: "),
        ({"at_once": 65}, "options.at_once: "),
        ({"memory_mb": 1 << 44}, "options.memory_mb: "),
        ({"disk_mb": 1 << 44}, "options.disk_mb: "),
        ({"cpu_seconds": 13}, "options: .*does not hold"),
        ({"total_cpu_seconds": 60}, "options: .*does not hold"),
    ],
)
def test_a_card_with_an_invalid_option_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(CardError, match=message):
        load(card_with(**options))


async def test_a_sandbox_failure_is_an_item_error_whose_reason_is_in_the_log_alone(
    model: CodeExecModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(self: Sandbox, program: str, *tests: object) -> list[ExecutionResult]:
        raise SandboxFailed("mounts: No space left on device")

    monkeypatch.setattr(Sandbox, "run", broken)
    with pytest.raises(ItemError) as caught:
        await model.predict(prepare(model).inputs)
    assert caught.value.code == "sandbox_failed"
    assert "No space left on device" not in caught.value.detail
    assert "No space left on device" in caplog.text


async def test_a_batch_waits_for_all_of_its_programs(
    model: CodeExecModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished: list[str] = []

    async def half_broken(self: Sandbox, program: str, *tests: object) -> list[ExecutionResult]:
        if "bad" in program:
            raise SandboxFailed("process: gone")
        finished.append(program)
        return [ExecutionResult("pass", 0.5)]

    monkeypatch.setattr(Sandbox, "run", half_broken)
    programs = ["bad = 1", "good = 1", "better = 1"]
    inputs = [prepare(model, f"```\n{program}\n```").inputs[0] for program in programs]
    assert await model.predict(inputs[1:]) == [(1.0, 0.0, 0.5, 0.0)] * 2
    finished.clear()
    with pytest.raises(ItemError, match="the sandbox did not work"):
        await model.predict(inputs)
    assert finished == programs[1:]


@pytest.fixture(scope="module")
def isolated_model() -> CodeExecModel:
    skip_without_isolation()
    return load()


class TestRunning:
    """The model with a real sandbox."""

    @pytest.fixture
    def running(self, isolated_model: CodeExecModel) -> CodeExecModel:
        return with_new_semaphore(isolated_model, 2)

    async def test_programs_are_run_each_with_its_own_result(self, running: CodeExecModel) -> None:
        inputs = [prepare(running, tests=tests).inputs[0] for tests in (TESTS, TESTS[:1])]
        half, whole = await running.predict(inputs)
        assert half[:2] == (0.5, 0.0)
        assert half[4] == OUTCOMES.index("fail")
        assert whole[0] == 1.0
        assert len(half) == 7

    async def test_the_example_of_the_card_and_the_probe_of_the_family_score_one(
        self, running: CodeExecModel
    ) -> None:
        assert CARD.example is not None
        for fields, score in ((CARD.example.item, 1.0), (FAMILIES["code_exec"].probe, 1.0)):
            prepared = running.prepare([CodeExecItem.model_validate(fields)], Options())
            raws = await running.predict(prepared.inputs)
            assert running.finish(prepared, raws, Options())[0].score == score

    async def test_each_pair_is_a_test_with_its_share(self, running: CodeExecModel) -> None:
        response = "```python\nx = int(input())\nprint(2 * x if x < 2 else 5)\n```"
        prepared = prepare(running, response, None, io=PAIRS)
        (score,) = running.finish(prepared, await running.predict(prepared.inputs), Options())
        assert (score.score, score.raw) == (0.0, 0.5)
        assert [test["outcome"] for test in score.details["tests"]] == ["pass", "fail"]

    async def test_a_trivial_program_is_run_and_flagged(self, running: CodeExecModel) -> None:
        prepared = prepare(running, "```\npass\n```", tests="assert double(1) == 2")
        assert prepared.flags == ("trivial_code",)
        ((passed, *_),) = await running.predict(prepared.inputs)
        assert passed == 0.0

    @pytest.mark.parametrize(
        "test",
        ["assert 1 + 1 == 2", "x = 1", "print(double(1) == 2)", "def helper():\n    return 1"],
    )
    async def test_tests_that_an_empty_program_passes_are_an_item_error(
        self, running: CodeExecModel, test: str
    ) -> None:
        with pytest.raises(ItemError) as caught:
            await running.predict(prepare(running, tests=test).inputs)
        assert caught.value.code == "vacuous_tests"
        both = prepare(running, tests=[test, TESTS[0]])
        ((passed, *_),) = await running.predict(both.inputs)
        assert passed == 1.0

    async def test_a_test_that_leaves_the_comparison_to_the_program_is_an_item_error(
        self, running: CodeExecModel
    ) -> None:
        equal = "class Equal:\n    def __eq__(self, other):\n        return True\n"
        response = f"```python\n{equal}def double(x):\n    return Equal()\n```"
        with pytest.raises(ItemError) as caught:
            await running.predict(prepare(running, response).inputs)
        assert caught.value.code == "unisolated_test"
        failing = prepare(running, response, tests=[*TESTS, "assert double(1) is None"])
        ((passed, *_),) = await running.predict(failing.inputs)
        assert passed == 0.0


def test_the_card_is_not_embedded() -> None:
    assert not CARD.embedded
    assert family_of(CARD) is FAMILIES["code_exec"]


def test_neither_family_nor_sandbox_needs_torch() -> None:
    program = (
        "import sys, assay_models.families.code_exec.model; "
        "sys.exit(bool({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
