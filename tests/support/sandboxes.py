"""Sandboxes for tests: their bounds, the processes that run in them, and their folders."""

import asyncio
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import psutil
import pytest

from assay_models.card import ModelCard, read_card
from assay_models.families.code_exec.model import CodeExecModel
from assay_models.families.code_exec.sandbox import START, Bounds, ExecutionResult, Sandbox
from assay_models.families.code_exec.self_test import find_broken_guarantee
from assay_models.registry import Runtime
from assay_models.repository import ModelFiles, embedded_root

BOUNDS = Bounds(cpu_seconds=1, total_cpu_seconds=3, memory_mb=256, processes=8, disk_mb=4)
ISOLATED = Sandbox(BOUNDS, is_isolated=True)
NOT_ISOLATED = Sandbox(BOUNDS, is_isolated=False)
FOLDER = embedded_root() / "code-exec" / "1"
CARD = read_card(FOLDER)
TIMEOUT_SECONDS = 30.0


@cache
def isolation_failure() -> str | None:
    """Return why programs cannot be isolated on this machine, or None if they can."""
    return find_broken_guarantee(BOUNDS)


def skip_without_isolation() -> None:
    """Skip where this machine has no isolation."""
    if (reason := isolation_failure()) is not None:
        pytest.skip(f"programs cannot be isolated here: {reason}")


def skip_without_open_sandbox() -> None:
    """Skip where programs that are not isolated cannot read Python's own files.

    If root runs the server, such programs run as another user.
    """
    program = "import string\nname = string.__name__"
    if outcomes(program, "assert name", sandbox=NOT_ISOLATED) != ["pass"]:
        pytest.skip("root's Python is readable by root alone: programs need isolation")


def run(program: str, *tests: str, sandbox: Sandbox = ISOLATED) -> list[ExecutionResult]:
    """Run a program against tests and return a verdict per test."""
    return asyncio.run(sandbox.run(program, tests))


def outcomes(program: str, *tests: str, sandbox: Sandbox = ISOLATED) -> list[str]:
    """Run a program against tests and return the outcomes only."""
    return [verdict.outcome for verdict in run(program, *tests, sandbox=sandbox)]


def card_with(**options: object) -> ModelCard:
    """Return the embedded card with some options replaced."""
    return CARD.model_copy(update={"options": {**CARD.options, **options}})


def load(card: ModelCard = CARD) -> CodeExecModel:
    return CodeExecModel.load(card, ModelFiles(FOLDER, None), Runtime())


def with_new_semaphore(model: CodeExecModel, at_once: int) -> CodeExecModel:
    """Return the model with a new semaphore, for another event loop."""
    return replace(model, slots=asyncio.Semaphore(at_once))


def sandbox_processes() -> list[psutil.Process]:
    """Return the processes of this process's sandboxes, with all that run in them."""
    processes = []
    for child in psutil.Process().children():
        try:
            if START in child.cmdline():
                processes += [child, *child.children(recursive=True)]
        except psutil.NoSuchProcess:
            continue
    return processes


def scratch_folders() -> set[Path]:
    """Return the scratch folders that are on this machine now, without those of runs of servers."""
    folders = set(Path(tempfile.gettempdir()).glob("assay-*"))
    return {folder for folder in folders if not folder.name.startswith("assay-runs-")}


async def wait_until(condition: Callable[[], bool]) -> None:
    """Poll until a condition holds, for states that have no event."""
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while not condition():  # noqa: ASYNC110 there is no event to wait for
            await asyncio.sleep(0.005)


async def wait_for_exit(processes: list[psutil.Process]) -> None:
    """Wait until all processes have ended.

    This polls, because waiting for a child reaps it: the event loop that started it would then
    never see its exit, and its `close` would wait for ever.
    """
    await wait_until(lambda: not any(map(is_alive, processes)))


def is_alive(process: psutil.Process) -> bool:
    """Return whether a process still runs; a process that ended but was not reaped does not."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
