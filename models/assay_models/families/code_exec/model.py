"""Execution as ground truth: a program is run against given tests, isolated from the machine.

The score is the binary reward of execution-based training, which CodeScaler measures itself against
(arXiv 2602.17684): 1 for a program that passes every test, 0 for any other.
"""

import asyncio
import json
import logging
import os
import platform
import re
import sys
from collections.abc import Awaitable, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import ClassVar, Literal, NamedTuple

from pydantic import Field

from assay_models.base import Input, Item, ItemError, Options, Prepared, Raw, Score
from assay_models.card import CardError, ModelCard
from assay_models.extraction import Extraction
from assay_models.extraction.asked import MAX_CHARACTERS, asked_by_prompt, asked_by_tests
from assay_models.families.code.programs import (
    ProgramExtractor,
    extraction_details,
    extraction_flags,
)
from assay_models.families.code_exec.cgroup import parent_group
from assay_models.families.code_exec.exchange import EXCEPTIONS
from assay_models.families.code_exec.isolation import PROGRAM_UID
from assay_models.families.code_exec.prompt_functions import helpers_of
from assay_models.families.code_exec.sandbox import (
    OUTCOMES,
    Bounds,
    Sandbox,
    SandboxFailed,
)
from assay_models.families.code_exec.self_test import find_broken_guarantee
from assay_models.items import CodeExecItem, Message
from assay_models.registry import Runtime
from assay_models.repository import ModelFiles, fingerprint_of

logger = logging.getLogger(__name__)

VERSION = 4
MAX_PARALLEL_PROGRAMS = 64
BYTES_PER_TOKEN = 4
CANDIDATE = "candidate"  # the parameter of HumanEval's `check`
_MISSING = (
    "a test needs a package that is not in the sandbox: use Python's own modules, and import the "
    "program by the name `solution`"
)
_UNISOLATED = (
    "a test leaves a comparison to the program itself, or shares more than plain data with it: "
    "compare values of Python's own types, such as an object's attributes"
)
_SANDBOX_FAILED = (
    "the sandbox did not work, which says nothing of the program: the server's log says why"
)
MISSING_MODULE = EXCEPTIONS.index("ModuleNotFoundError")
_USES_NAMES = re.compile(r"\b(?:def|import) ")
_STUB = re.compile(r"^(?:async )?def ([A-Za-z_]\w*)", re.MULTILINE)


class CodeExecOptions(Bounds):
    """`[options]` of a card of this family, besides the bounds of one program.

    `extraction` is the place of the program in a response: `strict`, `last_block`, `raw_code` or
    `solution`.
    `isolation`: whether the model may be served where programs cannot be isolated (`best_effort`,
    every result is then flagged) or not (`required`). `at_once`: programs that run at a time; by
    default as many as there are processors.
    """

    extraction: Extraction = "strict"
    isolation: Literal["required", "best_effort"] = "required"
    at_once: int | None = Field(default=None, ge=1, le=MAX_PARALLEL_PROGRAMS)


class Submission(NamedTuple):
    """A program, the tests that it is run against, pairs of an input and its output, the names of
    the function that is tested, the best first, and functions of the prompt that tests use."""

    program: str
    tests: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...] = ()
    entry_points: tuple[str, ...] = ()
    helpers: str = ""


@dataclass(frozen=True, slots=True)
class CodeExecModel:
    """A model that runs programs, a bounded number at a time.

    Raw is (share of the tests that passed, then for each test its outcome's number in `OUTCOMES`,
    its CPU seconds and its exception's number in `EXCEPTIONS`). A pair of input and output is a
    test. The score is the channel `all`: 1 where the share is 1, else 0; with
    `options.raw` it is the share, the channel `passed`. A response without a valid program gets 0
    by rule. Tokens are the bytes of program and tests, four to one.
    """

    fingerprint: str
    sandbox: Sandbox
    _: KW_ONLY
    programs: ProgramExtractor
    max_tokens: int
    slots: asyncio.Semaphore
    runs: ClassVar[Literal["remote"]] = "remote"
    sees: ClassVar[Literal["item"]] = "item"

    @classmethod
    def load(cls, card: ModelCard, files: ModelFiles, runtime: Runtime) -> "CodeExecModel":
        """Run the self-test of the sandbox and build the model; not inside an event loop.

        Raises:
            CardError: an option does not fit, or programs cannot be run here as the card demands;
                the text says which guarantee is broken and what to do about it.
        """
        options = card.options_as(CodeExecOptions)
        sandbox = choose_sandbox(card.id, options)
        programs = ProgramExtractor.for_card(card.id, options.extraction, ("python",))
        bounds = {name: getattr(options, name) for name in Bounds.model_fields}
        parts = {
            **bounds,
            **programs.fingerprint_parts,
            "family": card.family,
            "version": VERSION,
            "isolated": sandbox.is_isolated,
        }
        at_once = options.at_once or min(os.cpu_count() or 1, MAX_PARALLEL_PROGRAMS)
        return cls(
            fingerprint_of(parts),
            sandbox,
            programs=programs,
            max_tokens=card.limits.max_tokens,
            slots=asyncio.Semaphore(at_once),
        )

    def prepare(self, items: Sequence[Item], options: Options) -> Prepared:
        """Extract the program and check its tests; without a program there is no input.

        Raises:
            ItemError: a test is not valid Python or does nothing, no output is expected of any
                input, program and tests are too long, the program needs a newer Python, or no
                parser is available.
        """
        (item,) = items
        assert isinstance(item, CodeExecItem)
        tests, pairs = self._tests(item), _pairs(item)
        named = {item.entry_point} if item.entry_point else asked_by_tests(tests) - {CANDIDATE}
        asked = frozenset(named) or asked_by_prompt(_text(item.prompt))
        extracted = self.programs.extract(item.response, item.language, asked=asked)
        flags, details = extraction_flags(extracted), extraction_details(extracted)
        if extracted.code is None:
            return Prepared((), flags=flags, details=details)
        if extracted.is_newer:
            raise ItemError(
                "newer_python",
                f"the program uses syntax that Python {platform.python_version()} does not have: "
                "run the server with a newer Python",
            )
        points = _entry_points(item, tests)
        helpers = helpers_of(_text(item.prompt), points, tests) if points and tests else ""
        submission = Submission(extracted.code, tests, pairs, points, helpers)
        key = json.dumps(submission).encode()
        tokens = -(-len(key) // BYTES_PER_TOKEN)
        if tokens > self.max_tokens:
            raise ItemError("input_too_long", f"{tokens} tokens, the limit is {self.max_tokens}")
        return Prepared((Input(key, tokens, submission),), flags=flags, details=details)

    def cost(self, inputs: Sequence[Input]) -> int:
        """Return the number of all tokens: nothing is padded."""
        return sum(row.tokens for row in inputs)

    def predict(self, inputs: Sequence[Input]) -> Awaitable[list[Raw]]:
        """Run each program. Cancelling the result kills the programs.

        Raises:
            ItemError: the result of a program is not known; then no other is returned either.
        """
        return self._raws(inputs)

    def finish(self, prepared: Prepared, raws: Sequence[Raw], options: Options) -> list[Score]:
        """Return 1 if all tests passed, else 0; or the share that passed where the request asks for
        it."""
        if not prepared.inputs:
            return [_score(0.0, None, passed=0.0, prepared=prepared)]
        ((passed, *numbers),) = raws
        outcomes = [OUTCOMES[int(number)] for number in numbers[::3]]
        tests = [
            {"outcome": outcome, "seconds": seconds, **_exception(number)}
            for outcome, seconds, number in zip(outcomes, numbers[1::3], numbers[2::3], strict=True)
        ]
        flags = () if self.sandbox.is_isolated else ("not_isolated",)
        finished = replace(
            prepared,
            flags=(*prepared.flags, *flags),
            details={**prepared.details, "tests": tests},
        )
        score = passed if options.raw else float(passed == 1.0)
        return [_score(score, passed, passed=passed, prepared=finished)]

    def _tests(self, item: CodeExecItem) -> tuple[str, ...]:
        tests = (item.tests,) if isinstance(item.tests, str) else item.tests or ()
        for number, test in enumerate(tests):
            reason = self.programs.extract(test, extraction="raw_code").reason
            if reason != "ok" or not _compiles(test):
                raise ItemError(
                    "invalid_item", f"tests[{number}] cannot be run as a test: {reason}"
                )
        return tests

    async def _raws(self, inputs: Sequence[Input]) -> list[Raw]:
        runs = [self._raw(row.payload) for row in inputs]
        raws: list[Raw] = []
        for outcome in await asyncio.gather(*runs, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome
            raws.append(outcome)
        return raws

    async def _raw(self, submission: Submission) -> Raw:
        async with self.slots:
            try:
                results = await self.sandbox.run(*submission)
            except SandboxFailed as error:
                logger.error("the sandbox does not work: %s", error)
                raise ItemError("sandbox_failed", _SANDBOX_FAILED) from error
        if {result.outcome for result in results} in ({"unisolated"}, {"pass", "unisolated"}):
            is_missing = any(result.exception == MISSING_MODULE for result in results)
            raise ItemError("unisolated_test", _MISSING if is_missing else _UNISOLATED)
        passed = sum(result.outcome == "pass" for result in results) / len(results)
        numbers = [(OUTCOMES.index(outcome), *rest) for outcome, *rest in results]
        return (passed, *(float(number) for result in numbers for number in result))


def _pairs(item: CodeExecItem) -> tuple[tuple[str, str], ...]:
    pairs = tuple((pair.stdin, pair.stdout) for pair in item.io or ())
    if pairs and not item.tests and not any(stdout.strip() for _, stdout in pairs):
        raise ItemError(
            "vacuous_tests",
            "no pair of `io` expects any output, so an empty program passes: give the output",
        )
    return pairs


def _entry_points(item: CodeExecItem, tests: Sequence[str]) -> tuple[str, ...]:
    """List the names of the function that is tested: the given one, else those of the prompt.

    Without a function or an import in the tests that would get it, there is none, so that the
    prompt changes no key of the cache.
    """
    if item.entry_point is not None:
        return (item.entry_point,)
    if not any(map(_USES_NAMES.search, tests)):
        return ()
    prompt = _text(item.prompt)
    stubs = _STUB.findall(prompt[-MAX_CHARACTERS:])
    return tuple(dict.fromkeys([*reversed(stubs), *sorted(asked_by_prompt(prompt))]))


def _text(prompt: str | tuple[Message, ...] | None) -> str:
    if prompt is None or isinstance(prompt, str):
        return prompt or ""
    return "\n".join(message.content or "" for message in prompt if message.role == "user")


def _exception(number: float) -> dict[str, str]:
    return {"exception": EXCEPTIONS[int(number)]} if number else {}


def _score(score: float, raw: float | None, *, passed: float, prepared: Prepared) -> Score:
    channels = {"passed": passed, "all": float(passed == 1.0)}
    return Score(score, raw, channels=channels, flags=prepared.flags, details=prepared.details)


def choose_sandbox(model: str, options: CodeExecOptions) -> Sandbox:
    """Return an isolated sandbox, or one that is not isolated if the card accepts that.

    Raises:
        CardError: isolation is required and does not work, or programs cannot be run at all.
    """
    if sys.platform != "linux":
        raise CardError(f"{model}: programs are run on Linux only")
    bounds = Bounds.model_validate({name: getattr(options, name) for name in Bounds.model_fields})
    broken = find_broken_guarantee(bounds)
    if broken is None:
        if parent_group() is None:
            logger.warning(
                "%s: no control group can be made here, so memory is limited for each process of a "
                "program, and not for all together",
                model,
            )
        return Sandbox(bounds, is_isolated=True)
    if options.isolation == "required":
        raise CardError(
            f"{model}: programs cannot be shut off here: {broken}; or accept that they are not, "
            'with isolation = "best_effort" in [options]'
        )
    logger.warning("%s runs programs that are NOT shut off: %s", model, broken)
    return _not_isolated(model, Sandbox(bounds, is_isolated=False))


def _not_isolated(model: str, sandbox: Sandbox) -> Sandbox:
    try:
        (result,) = asyncio.run(
            sandbox.run("import string\nname = string.__name__", ["assert name"])
        )
    except SandboxFailed as error:
        raise CardError(f"{model}: programs cannot be run here at all: {error}") from error
    if result.outcome != "pass":
        raise CardError(
            f"{model}: programs cannot be run here at all: `import string` ends as "
            f"{result.outcome}; a server that runs as root runs them as user {PROGRAM_UID}, "
            f"which may need the permission to read {os.path.dirname(os.__file__)}"
        )
    return sandbox


def _compiles(test: str) -> bool:
    """Return whether a test compiles; a `return` outside a function parses and does not."""
    try:
        compile(test, "<test>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True
