"""Execution of an untrusted program, in a process of its own that is isolated."""

import asyncio
import hashlib
import marshal
import os
import platform
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from signal import SIGKILL
from typing import Literal, NamedTuple, Self, cast, get_args

from cachetools import LRUCache
from pydantic import BaseModel, ConfigDict, Field, model_validator

from assay_models.base import ItemError
from assay_models.families.code_exec.cgroup import MemoryGroup, memory_group
from assay_models.families.code_exec.exchange import output_digest
from assay_models.families.code_exec.isolation import PROGRAM_UID, SCRATCH
from assay_models.families.code_exec.seccomp import filter_for

Outcome = Literal[
    "pass", "fail", "error", "exit", "crash", "timeout", "memory", "skipped", "unisolated"
]
"""The outcome of a test.

`pass`: it reached its end, or its output is the expected one. `fail`: an AssertionError, or another
output. `error`: any other exception. `exit`: the process exited before the end, or with a status
that is not 0. `crash`: a signal ended it. `timeout`: its CPU time was used up, or it waited for
twice as long. `memory`: a MemoryError, or all its processes together took too much. `skipped`: the
time for all tests was used up before. `unisolated`: no verdict, because the test leaves a
comparison to the program, or shares more than plain data with it.
"""
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)

START = """\
import marshal, os
def read(size):
    data = b""
    while len(data) < size:
        data += os.read(0, size - len(data)) or os._exit(1)
    return data
for part in marshal.loads(read(int(read(8), 16))):
    exec(part)
"""
# The files that run in the sandbox, in this order, as one module.
PARTS = (
    "exchange",
    "isolation",
    "wire",
    "program",
    "host",
    "audit",
    "remote",
    "origins",
    "judge",
    "shapes",
    "trial",
    "runner",
)
COMMAND = (sys.executable, "-s", "-S", "-P", "-X", "utf8", "-c", START)
MAX_QUEUED_SIGNALS, MAX_SOUND_TESTS = 128, 4096
# Sets and dicts of strings have one order, so that a program behaves the same each time.
ENVIRONMENT = {"PYTHONHASHSEED": "0"}
SYSTEM = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo", "/etc/ld.so.cache")


class ExecutionResult(NamedTuple):
    """The outcome of one test, its CPU seconds with all processes that it started, and the number
    of the exception that ended it (see `EXCEPTIONS`)."""

    outcome: Outcome
    seconds: float
    exception: int = 0


class SandboxFailed(Exception):
    """The sandbox itself did not work, which says nothing about the program.

    The text names the step (`namespaces`, `users`, `mounts`, `candidate`, `memory`, `process`) and
    the system's reason.
    """


class Bounds(BaseModel):
    """The resources that one program may use.

    `cpu_seconds`: of one test with all processes that it starts; a second in which it only waits
    counts half. `total_cpu_seconds`: of all tests together. `wall_seconds`: by the clock, a
    backstop without an outcome. `memory_mb` (MiB): of each process, the interpreter included, and
    of all together where a control group can be had. `processes`: at a time, threads counted.
    `disk_mb` (MiB): of each test's folder and of the largest file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpu_seconds: int = Field(default=4, ge=1, le=60)
    total_cpu_seconds: int = Field(default=12, ge=1, le=100)
    wall_seconds: float = Field(default=60.0, gt=0, le=110)
    memory_mb: int = Field(default=512, ge=64, le=1 << 20)
    processes: int = Field(default=8, ge=1, le=1024)
    disk_mb: int = Field(default=16, ge=1, le=1 << 16)

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if not self.cpu_seconds <= self.total_cpu_seconds < self.wall_seconds:
            raise ValueError("cpu_seconds <= total_cpu_seconds < wall_seconds does not hold")
        return self


class _RunnerProcess:
    """One process of the runner, started and awaited by one thread.

    The kernel kills the runner when the thread that started it ends. It is not started in the event
    loop, because a fork copies the server's page tables; Python's own `subprocess` need not fork.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._is_killed = False

    def run(self, request: bytes) -> bytes:
        """Return the runner's report; nothing if it was killed."""
        if self._is_killed:
            return b""
        self._process = subprocess.Popen(  # noqa: S603 nothing in it comes from outside
            COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=ENVIRONMENT,
            cwd="/",
            start_new_session=True,
        )
        # Either this thread sees the flag, or `kill` sees the process.
        if self._is_killed:
            self._end(self._process)
        return self._process.communicate(request)[0]

    def kill(self) -> None:
        """Kill the runner and all of its processes, unless it has ended; never wait for its start.

        One that is about to start is killed by its thread.
        """
        self._is_killed = True
        if self._process is not None:
            self._end(self._process)

    @staticmethod
    def _end(process: "subprocess.Popen[bytes]") -> None:
        if process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, SIGKILL)


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A sandbox for programs, with bounds; isolated from the machine if it is `is_isolated`.

    `sound` holds the digests of tests that an empty program has failed: they are tried once.
    """

    bounds: Bounds
    is_isolated: bool
    sound: LRUCache[bytes, bool] = field(
        default_factory=lambda: LRUCache(MAX_SOUND_TESTS), compare=False, repr=False
    )

    async def run(
        self,
        program: str,
        tests: Sequence[str],
        pairs: Sequence[tuple[str, str]] = (),
        entry_points: Sequence[str] = (),
        helpers: str = "",
    ) -> list[ExecutionResult]:
        """Run a program against its tests, then with each input, and return the results in order.

        When the caller is cancelled, all processes end.

        Args:
            program: the program in Python.
            tests: snippets, each run against the program.
            pairs: of an input and the output that the program has to print for it.
            entry_points: names of the function that a test's `check` gets, the best first; without
                one that the program defines, its last function.
            helpers: functions that belong to the tests, in Python.

        Raises:
            SandboxFailed: the program could not be run, or not to its end.
            ItemError: `not_finished`, the clock stopped it with CPU time left; `vacuous_tests`, an
                empty program passes all of them.
        """
        may_be_vacuous = bool(tests) and not any(output.strip() for _, output in pairs)
        known = marshal.dumps((*tests, None, *entry_points, None, helpers), 0)
        digest = hashlib.sha256(known).digest()
        asked = {
            "tests": list(tests),
            "inputs": [text for text, _ in pairs],
            "entry_points": list(entry_points),
            "helpers": helpers,
            "vacuous": may_be_vacuous and digest not in self.sound,
        }
        with self._folder() as folder, memory_group(self.bounds.memory_mb << 20) as group:
            request = self._request(program, folder, group)
            # The program's process is started before the tests are read: it never holds them.
            frames = runner_code(), marshal.dumps(request), marshal.dumps(asked)
            report = await self._report(b"".join(b"%08x%b" % (len(part), part) for part in frames))
        expected = [output_digest(text.encode(errors="surrogatepass")) for _, text in pairs]
        results = _read_report(report, ["-"] * len(tests) + expected)
        if may_be_vacuous:
            self.sound[digest] = True
        return results

    async def _report(self, request: bytes) -> str:
        """Run the runner and return its report."""
        process, executor = _RunnerProcess(), ThreadPoolExecutor(1, "program")
        running = asyncio.get_running_loop().run_in_executor(executor, process.run, request)
        try:
            async with asyncio.timeout(self.bounds.wall_seconds):
                report = await asyncio.shield(running)
        except TimeoutError:
            raise ItemError(
                "not_finished",
                f"stopped after {self.bounds.wall_seconds:g} s with CPU time left: the program "
                "waits for something, or the machine has too much to do",
            ) from None
        finally:
            process.kill()
            executor.shutdown(wait=False)
            if not running.done():
                await asyncio.wait({running})
        return report.decode()

    def _request(self, program: str, folder: str, group: MemoryGroup | None) -> dict[str, object]:
        bounds = self.bounds
        return {
            "program": program,
            "isolated": self.is_isolated,
            "readable": readable_paths(),
            "hidden": hidden_paths(),
            "group": group and tuple(group),
            "filter": filter_for(platform.machine()),
            "folder": folder,
            "cpu_seconds": bounds.cpu_seconds,
            "total_cpu_seconds": bounds.total_cpu_seconds,
            "processes": bounds.processes,
            "disk": bounds.disk_mb << 20,
            "limits": {
                "RLIMIT_AS": bounds.memory_mb << 20,
                "RLIMIT_FSIZE": bounds.disk_mb << 20,
                "RLIMIT_NOFILE": 64,
                "RLIMIT_CORE": 0,
                "RLIMIT_MEMLOCK": 0,
                "RLIMIT_SIGPENDING": MAX_QUEUED_SIGNALS,
            },
        }

    @contextmanager
    def _folder(self) -> Iterator[str]:
        """Make the folder that programs may write to; without isolation one of the machine's."""
        if self.is_isolated:
            yield SCRATCH
            return
        with tempfile.TemporaryDirectory(prefix="assay-", ignore_cleanup_errors=True) as folder:
            if os.geteuid() == 0:
                os.chown(folder, PROGRAM_UID, PROGRAM_UID)
                os.chmod(folder, 0o777)  # noqa: S103 its judge has another user
            yield folder


def _read_report(report: str, digests: Sequence[str]) -> list[ExecutionResult]:
    """Read the results; an output that is not the expected one, by its digest, is a failure."""
    if report.startswith("broken "):
        raise SandboxFailed(report.removeprefix("broken ").strip())
    if report == "vacuous\n":
        raise ItemError(
            "vacuous_tests",
            "an empty program passes all tests, so they test nothing: assert what the program "
            "returns",
        )
    lines = [line.split() for line in report.splitlines()]
    if len(lines) != len(digests) or any(
        len(line) != 4 or line[0] not in OUTCOMES for line in lines
    ):
        raise SandboxFailed("process: it ended without a verdict")
    return [
        ExecutionResult(
            "fail" if outcome == "pass" and digest != expected else cast(Outcome, outcome),
            float(seconds),
            int(exception),
        )
        for (outcome, seconds, exception, digest), expected in zip(lines, digests, strict=True)
    ]


@cache
def runner_code() -> bytes:
    """Compile the files that run in the sandbox, once."""
    paths = [Path(__file__).with_name(f"{name}.py") for name in PARTS]
    return marshal.dumps(
        [compile(path.read_bytes(), path.name, "exec", dont_inherit=True) for path in paths]
    )


@cache
def readable_paths() -> tuple[str, ...]:
    """List what a program may read: Python's own files and the libraries that they need."""
    base, modules = Path(sys.base_prefix), os.path.dirname(os.__file__)
    compiled = sysconfig.get_config_var("DESTSHARED") or modules
    python = (base / "lib", base / "lib64", modules, compiled)
    paths = sorted({str(path) for path in (*python, *SYSTEM) if os.path.lexists(path)})
    return tuple(path for path in paths if not any(path.startswith(f"{other}/") for other in paths))


@cache
def hidden_paths() -> tuple[str, ...]:
    """List the folders of installed packages among what a program may read: it cannot see them."""
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    folders = {
        f"{root}/{version}/{kind}"
        for root in (os.path.join(sys.base_prefix, "lib"), "/usr/lib")
        for version in (python, "python3")
        for kind in ("site-packages", "dist-packages")
    }
    readable = readable_paths()
    return tuple(
        path
        for path in sorted(folders)
        if os.path.isdir(path)
        and os.path.realpath(path) == path
        and any(path.startswith(f"{other}/") for other in readable)
    )
