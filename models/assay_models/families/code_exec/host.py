"""The host of programs: it starts a candidate for each test, and kills what is left of it.

This file is executed in the sandbox, in front of the runner, and imports only the standard library.
"""

from __future__ import annotations

import mmap
import os
import resource
import signal
import struct
import sys
from array import array
from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:  # they run in front of this file, in the same module
    from _socket import socket

    from assay_models.families.code_exec.exchange import (
        children,
        connect,
        cpu_of_children,
        exception_number,
        run_main,
    )
    from assay_models.families.code_exec.isolation import (
        PROGRAM_UID,
        SIGKILL,
        Request,
        drop_privileges,
    )
    from assay_models.families.code_exec.program import Program, compile_program, new_module
    from assay_models.families.code_exec.wire import Channel

TASK = struct.Struct("=?i")
"""A task for the host: whether the program gets an input, and its CPU seconds. The files come
along: the socket to the judge, or input and output."""
END = struct.Struct("=?Bid")
"""The end of a candidate: whether it began, its exception's number, its status, CPU seconds."""
DONE, EXITED, LEFT, ERROR, FAIL, MEMORY = 0, 1, 64, 101, 102, 103
SEND_FILES, SEND_PROCESS = 1, 2  # SCM_RIGHTS, SCM_CREDENTIALS
UNIX = 1  # AF_UNIX, and SOL_SOCKET
BEGAN, EXCEPTION = 0, 1


class Host:
    """Process 1 of a process namespace for programs alone: it runs a candidate when asked."""

    def __init__(self, request: Request, control: socket, members: int) -> None:
        self._request, self._control, self._members = request, control, members

    def serve(self) -> NoReturn:
        """Run candidates until the supervisor is gone."""
        # Where a program has the same user, it could end the host by this signal alone.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        close_all_but({self._control.fileno(), self._members})
        while True:
            task, ancillary, _, _ = self._control.recvmsg(TASK.size, 256)
            if not task:
                os._exit(0)
            ((_, _, files),) = ancillary
            is_input, limit = TASK.unpack(task)
            self._run(is_input, limit, array("i", files).tolist())

    def _run(self, is_input: bool, limit: int, files: list[int]) -> None:
        """Run one candidate to its end, kill what it leaves behind, and report."""
        progress = mmap.mmap(-1, mmap.PAGESIZE)
        before = cpu_of_children()
        candidate = os.fork()
        if not candidate:
            run_candidate(self._request, (is_input, limit, files), progress, self._members)
        for file in files:
            os.close(file)
        identity = struct.pack("=iII", candidate, os.getuid(), os.getgid())
        ancillary = [(UNIX, SEND_PROCESS, identity)] if self._request["isolated"] else []
        self._control.sendmsg([struct.pack("=i", candidate)], ancillary)
        _, status = os.waitpid(candidate, 0)
        kill_all(self._request["isolated"])
        spent = cpu_of_children() - before
        end = END.pack(bool(progress[BEGAN]), progress[EXCEPTION], status, spent)
        progress.close()
        self._control.send(end)


def close_all_but(kept: set[int]) -> None:
    """Close all files above the standard ones, but these."""
    edges = sorted({2, *kept, resource.getrlimit(resource.RLIMIT_NOFILE)[0]})
    for before, after in pairwise(edges):
        os.closerange(before + 1, after)


def kill_all(is_isolated: bool) -> None:
    """Kill all processes that a candidate has left running, and wait for their end."""
    while True:
        with suppress(ProcessLookupError):
            for process in [-1] if is_isolated else children():
                os.kill(process, SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def run_candidate(
    request: Request,
    task: tuple[bool, int, list[int]],
    progress: mmap.mmap,
    members: int,
) -> NoReturn:
    """Run the program in this process, with an input or for a judge, and end the process."""
    is_input, limit, files = task
    os.write(members, b"0")
    for place, file in enumerate(files):
        os.dup2(file, place if is_input else 3 + place)
    close_all_but(set() if is_input else {3})
    signal.signal(signal.SIGINT, signal.default_int_handler)
    drop_privileges(request, limit, PROGRAM_UID)
    progress[BEGAN] = 1
    if is_input:
        connect()
        run_with_input(request["program"], progress)
    progress.close()
    serve_judge(Program(request["program"], Channel(3)))


def run_with_input(text: str, progress: mmap.mmap) -> NoReturn:
    """Run a program as the main one, and end the process with the code of its outcome."""
    code, leave = ERROR, os._exit
    number_of, current = exception_number, sys.exception
    failed, exhausted = number_of(AssertionError()), number_of(MemoryError())
    try:
        module = new_module("__main__")
        code = DONE if run_main(compile_program(text), module.__dict__) else EXITED
    except AssertionError:
        code, progress[EXCEPTION] = FAIL, failed
    except MemoryError:
        code, progress[EXCEPTION] = MEMORY, exhausted
    finally:
        try:
            if code == ERROR:
                progress[EXCEPTION] = number_of(current())
        finally:
            leave(code)


def serve_judge(program: Program) -> NoReturn:
    """Answer the judge's questions until there are no more."""
    leave, peer = os._exit, program.peer
    try:
        while True:
            peer.reply(peer.next_question())
    finally:
        leave(LEFT)
