"""Execution as gold: a program is run against given tests, shut off from the machine.

The score is the binary reward of execution-based training, which CodeScaler measures itself against
(arXiv 2602.17684): 1 for a program that passes every test, 0 for any other.
"""

import asyncio
import json
import logging
import os
import sys
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

from pydantic import Field

from assay_models.base import Input, Item, ItemError, Options, Prepared, Raw, Score
from assay_models.card import CardError, ModelCard
from assay_models.extraction import Extraction
from assay_models.families.code.programs import Programs, details_of, flags_of
from assay_models.families.code_exec.sandbox import OUTCOMES, Bounds, Sandbox, SandboxFailed
from assay_models.families.code_exec.self_test import broken_promise
from assay_models.items import CodeExecItem
from assay_models.registry import Runtime
from assay_models.repository import ModelFiles, fingerprint_of

logger = logging.getLogger(__name__)

VERSION = 1
MOST_AT_ONCE = 64
BYTES_IN_A_TOKEN = 4


class CodeExecOptions(Bounds):
    """`[options]` of a card of this family, besides the bounds of one program.

    `extraction` says where in a response its program is: `strict`, `last_block` or `raw_code`.
    `isolation`: whether the model may be served where programs cannot be shut off (`best_effort`,
    every result is then flagged) or not (`required`). `at_once`: programs that run at a time; as
    many as there are processors if it does not say.
    """

    extraction: Extraction = "strict"
    isolation: Literal["required", "best_effort"] = "required"
    at_once: int | None = Field(default=None, ge=1, le=MOST_AT_ONCE)


class Exercise(NamedTuple):
    """A program, and the tests it is put to."""

    program: str
    tests: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CodeExecModel:
    """Runs programs, a bounded number at a time.

    Raw is (share of the tests that passed, then for each test its outcome's number in `OUTCOMES`
    and its CPU seconds). The score is the channel `all`: 1 where the share is 1, else 0; with
    `options.raw` it is the share, the channel `passed`. A response without a valid program gets 0
    by rule. Tokens are the bytes of program and tests, four to one.
    """

    fingerprint: str
    sandbox: Sandbox
    programs: Programs
    max_tokens: int
    turns: asyncio.Semaphore
    runs: ClassVar[Literal["remote"]] = "remote"
    sees: ClassVar[Literal["item"]] = "item"

    @classmethod
    def load(cls, card: ModelCard, files: ModelFiles, runtime: Runtime) -> "CodeExecModel":
        """Prove that programs are shut off here. Not to be called inside an event loop.

        Raises:
            CardError: an option is not right, or programs cannot be run here as the card wants; the
                text says which promise is broken and how to mend it.
        """
        options = card.options_as(CodeExecOptions)
        sandbox = _proven(card.id, options)
        programs = Programs.of(card.id, options.extraction, ("python",))
        bounds = {name: getattr(options, name) for name in Bounds.model_fields}
        parts = {
            **bounds,
            **programs.fingerprint_parts,
            "family": card.family,
            "version": VERSION,
            "isolated": sandbox.isolated,
        }
        at_once = options.at_once or min(os.cpu_count() or 1, MOST_AT_ONCE)
        return cls(
            fingerprint_of(parts),
            sandbox,
            programs,
            card.limits.max_tokens,
            asyncio.Semaphore(at_once),
        )

    def prepare(self, items: Sequence[Item], options: Options) -> Prepared:
        """The program and its tests; no input at all where there is no program.

        Raises:
            ItemError: a test is not valid Python or does nothing, all is too long, or no parser is
                to be had.
        """
        (item,) = items
        assert isinstance(item, CodeExecItem)
        tests = self._tests(item)
        found = self.programs.found(item.response, item.language)
        if found.code is None:
            return Prepared((), flags=flags_of(found), details=details_of(found))
        key = json.dumps([found.code, tests]).encode()
        tokens = -(-len(key) // BYTES_IN_A_TOKEN)
        if tokens > self.max_tokens:
            raise ItemError("input_too_long", f"{tokens} tokens, the limit is {self.max_tokens}")
        one = Input(key, tokens, Exercise(found.code, tests))
        return Prepared((one,), flags=flags_of(found), details=details_of(found))

    def cost(self, inputs: Sequence[Input]) -> int:
        """Nothing is padded."""
        return sum(one.tokens for one in inputs)

    def predict(self, inputs: Sequence[Input]) -> Awaitable[list[Raw]]:
        """Run each program. To cancel is to kill.

        Raises:
            ItemError: a program's verdict is not known; none of the others' is then told.
        """
        return self._raws(inputs)

    def finish(self, prepared: Prepared, raws: Sequence[Raw], options: Options) -> list[Score]:
        """All or nothing, or the share that passed where the request asks for the raw."""
        flags = (*prepared.flags, *(() if self.sandbox.isolated else ("not_isolated",)))
        if not prepared.inputs:
            channels = {"passed": 0.0, "all": 0.0}
            return [Score(0.0, None, channels, prepared.flags, prepared.details)]
        ((passed, *told),) = raws
        outcomes = [OUTCOMES[int(number)] for number in told[::2]]
        tests = [
            {"outcome": outcome, "seconds": seconds}
            for outcome, seconds in zip(outcomes, told[1::2], strict=True)
        ]
        every = float(passed == 1.0)
        channels = {"passed": passed, "all": every}
        if "forged" in outcomes:
            flags = (*flags, "forged")
        details = {**prepared.details, "tests": tests}
        return [Score(passed if options.raw else every, passed, channels, flags, details)]

    def _tests(self, item: CodeExecItem) -> tuple[str, ...]:
        tests = (item.tests,) if isinstance(item.tests, str) else item.tests
        for number, test in enumerate(tests):
            reason = self.programs.found(test, extraction="raw_code").reason
            if reason != "ok" or not _compiles(test):
                raise ItemError(
                    "invalid_item", f"tests[{number}] cannot be run as a test: {reason}"
                )
        return tests

    async def _raws(self, inputs: Sequence[Input]) -> list[Raw]:
        runs = [self._raw(one.payload) for one in inputs]
        raws: list[Raw] = []
        for outcome in await asyncio.gather(*runs, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome
            raws.append(outcome)
        return raws

    async def _raw(self, exercise: Exercise) -> Raw:
        async with self.turns:
            try:
                verdicts = await self.sandbox.run(*exercise)
            except SandboxFailed as error:
                logger.error("the sandbox does not work: %s", error)
                raise ItemError("sandbox_failed", f"the sandbox did not work: {error}") from error
        passed = sum(verdict.outcome == "pass" for verdict in verdicts) / len(verdicts)
        told = [(OUTCOMES.index(outcome), seconds) for outcome, seconds in verdicts]
        return (passed, *(float(number) for pair in told for number in pair))


def _proven(model: str, options: CodeExecOptions) -> Sandbox:
    """The sandbox that keeps its promises, or the one that the card is content with."""
    if sys.platform != "linux":
        raise CardError(f"{model}: programs are run on Linux only")
    bounds = Bounds.model_validate({name: getattr(options, name) for name in Bounds.model_fields})
    broken = broken_promise(bounds)
    if broken is None:
        return Sandbox(bounds, isolated=True)
    if options.isolation == "required":
        raise CardError(
            f"{model}: programs cannot be shut off here: {broken}; or accept that they are not, "
            'with isolation = "best_effort" in [options]'
        )
    logger.warning("%s runs programs that are NOT shut off: %s", model, broken)
    open_one = Sandbox(bounds, isolated=False)
    try:
        (verdict,) = asyncio.run(open_one.run("import string", ["assert string"]))
    except SandboxFailed as error:
        raise CardError(f"{model}: programs cannot be run here at all: {error}") from error
    if verdict.outcome != "pass":
        raise CardError(
            f"{model}: programs cannot be run here at all: `import string` ends as "
            f"{verdict.outcome}; a server of root's runs them as nobody, who may have to be let "
            f"read {os.path.dirname(os.__file__)}"
        )
    return open_one


def _compiles(test: str) -> bool:
    """Some of what parses does not, such as a `return` outside a function."""
    try:
        compile(test, "<test>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True
