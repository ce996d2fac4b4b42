"""Sandboxes for tests: the bounds they share, what runs in them, and what must be gone after."""

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
from assay_models.families.code_exec.sandbox import START, Bounds, Sandbox, Verdict
from assay_models.families.code_exec.self_test import broken_promise
from assay_models.registry import Runtime
from assay_models.repository import ModelFiles, embedded_root

BOUNDS = Bounds(cpu_seconds=1, total_cpu_seconds=3, memory_mb=256, processes=8, disk_mb=4)
SHUT = Sandbox(BOUNDS, isolated=True)
OPEN = Sandbox(BOUNDS, isolated=False)
FOLDER = embedded_root() / "code-exec" / "1"
CARD = read_card(FOLDER)
SECONDS = 30.0


@cache
def why_not() -> str | None:
    """Why programs cannot be shut off on this machine, if they cannot."""
    return broken_promise(BOUNDS)


def need_isolation() -> None:
    """Skip where this machine has no isolation."""
    if (reason := why_not()) is not None:
        pytest.skip(f"programs cannot be shut off here: {reason}")


def need_open() -> None:
    """Skip where nobody may read Python's own files, and programs run as nobody."""
    if outcomes("import string", "assert string", sandbox=OPEN) != ["pass"]:
        pytest.skip("run by root, whose Python nobody else may read: programs need isolation")


def run(program: str, *tests: str, sandbox: Sandbox = SHUT) -> list[Verdict]:
    return asyncio.run(sandbox.run(program, tests))


def outcomes(program: str, *tests: str, sandbox: Sandbox = SHUT) -> list[str]:
    return [verdict.outcome for verdict in run(program, *tests, sandbox=sandbox)]


def card_with(**options: object) -> ModelCard:
    return CARD.model_copy(update={"options": {**CARD.options, **options}})


def load(card: ModelCard = CARD) -> CodeExecModel:
    return CodeExecModel.load(card, ModelFiles(FOLDER, None), Runtime())


def with_turns(model: CodeExecModel, at_once: int) -> CodeExecModel:
    """The same model for another event loop."""
    return replace(model, turns=asyncio.Semaphore(at_once))


def runners() -> list[psutil.Process]:
    """This process's sandboxes, with all that runs in them."""
    found = []
    for door in psutil.Process().children():
        try:
            if START in door.cmdline():
                found += [door, *door.children(recursive=True)]
        except psutil.NoSuchProcess:
            continue
    return found


def folders() -> set[Path]:
    """The scratch folders that lie about on this machine."""
    return set(Path(tempfile.gettempdir()).glob("assay-*"))


async def until(holds: Callable[[], bool]) -> None:
    """Wait for a state that nothing announces."""
    async with asyncio.timeout(SECONDS):
        while not holds():  # noqa: ASYNC110 there is no event to wait for
            await asyncio.sleep(0.005)


async def end_of(processes: list[psutil.Process]) -> None:
    """Wait until all have ended.

    Polled, because waiting for a child reaps it: the event loop that started it would then never
    learn of its end, and its `close` would wait for ever.
    """
    await until(lambda: not any(map(is_alive, processes)))


def is_alive(process: psutil.Process) -> bool:
    """Whether a process still runs; one that ended and was not reaped yet does not."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
