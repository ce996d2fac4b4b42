"""Sessions in which the blocks of one page run: a shell, a Python interpreter, and servers."""

import json
import os
import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from support.servers import free_port

SECONDS = 600.0
DEFAULT_PORT = 8000
PROMPT = "$ "
MARK = "__block_finished__"
SERVER = re.compile(r"(?:assay|make) serve(?: --port \d+)?$")
PORT_OPTION = re.compile(r"--port (\d+)")

WORKER = """
import contextlib, io, json, sys, traceback
names = {"__name__": "__page__"}
for line in sys.stdin:
    output, failed = io.StringIO(), False
    with contextlib.redirect_stdout(output):
        try:
            exec(compile(json.loads(line), "<page>", "exec"), names)
        except BaseException:
            failed = True
            output.write(traceback.format_exc())
    sys.__stdout__.write(json.dumps([failed, output.getvalue()]) + chr(10))
    sys.__stdout__.flush()
"""


def commands_of(lines: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield each command of a console block with the output that is printed below it.

    A command begins behind `$ ` and goes on over the next lines as long as a quote is open or a
    line ends with a backslash.
    """
    number = 0
    while number < len(lines):
        assert lines[number].startswith(PROMPT), f"no command: {lines[number]}"
        command = lines[number].removeprefix(PROMPT)
        number += 1
        while not _is_complete(command):
            command += "\n" + lines[number]
            number += 1
        output: list[str] = []
        while number < len(lines) and not lines[number].startswith(PROMPT):
            output.append(lines[number])
            number += 1
        yield command, output


def _is_complete(command: str) -> bool:
    if command.endswith("\\"):
        return False
    try:
        shlex.split(command, comments=True)
    except ValueError:
        return False
    return True


def is_server(command: str) -> bool:
    """Return whether a command starts a server and does not come back."""
    return SERVER.search(command.partition("#")[0].strip()) is not None


class Shell:
    """One bash for all commands of a page, so that variables and the folder stay.

    Args:
        folder: where it begins.
        environment: of the commands.
    """

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._bash = subprocess.Popen(
            ["bash"],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, command: str) -> tuple[str, int]:
        """Return what a command writes to stdout and stderr, and its exit status."""
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        last = f'__status=$?; printf "\\n{MARK} %s\\n" $__status; (exit $__status)'
        late = threading.Timer(SECONDS, self._bash.kill)
        late.start()
        self._bash.stdin.write(f"{{ {command}\n}} </dev/null\n{last}\n")
        self._bash.stdin.flush()
        output: list[str] = []
        for line in self._bash.stdout:
            if line.startswith(MARK):
                late.cancel()
                return "".join(output), int(line.split()[1])
            output.append(line)
        raise RuntimeError(f"the shell ended in: {command}\n{''.join(output)}")

    def close(self) -> None:
        """End the shell."""
        self._bash.kill()
        self._bash.communicate()


class Interpreter:
    """One Python process for all blocks of a page, so that names stay."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", WORKER],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def run(self, program: str) -> tuple[bool, str]:
        """Return whether a program failed, and what it printed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        late = threading.Timer(SECONDS, self._process.kill)
        late.start()
        self._process.stdin.write(json.dumps(program) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        late.cancel()
        assert answer, f"the interpreter ended in:\n{program}"
        failed, output = json.loads(answer)
        return bool(failed), str(output)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


class Server:
    """A server that a page or the tests start, on a free port.

    Args:
        command: as printed; `make serve` is `assay serve`.
        folder: where it runs.
        environment: of the process.
    """

    def __init__(self, command: str, folder: Path, environment: dict[str, str]) -> None:
        given = PORT_OPTION.search(command)
        self.printed_port = int(given[1]) if given else DEFAULT_PORT
        self.port = free_port()
        line = PORT_OPTION.sub("", command).replace("make serve", "assay serve")
        self._lines: list[str] = []
        self._process = subprocess.Popen(
            ["bash", "-c", f"exec env {line}" if "=" in line.split()[0] else f"exec {line}"],
            cwd=folder,
            env={**environment, "ASSAY_PORT": str(self.port)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        self._lines.extend(self._process.stderr)

    def log(self) -> str:
        """Return the server's log once every model is ready or it has ended."""
        until = time.monotonic() + SECONDS
        while not self._is_loaded() and self._process.poll() is None:
            assert time.monotonic() < until, "".join(self._lines)
            time.sleep(0.1)
        return "".join(self._lines)

    def _is_loaded(self) -> bool:
        announced = re.search(r"serves (.+) on http", "".join(self._lines))
        loaded = sum(" is ready" in line for line in list(self._lines))
        return announced is not None and loaded == len(announced[1].split(", "))

    def close(self) -> None:
        """Stop the server."""
        self._process.terminate()
        self._process.wait(SECONDS)
        self._reader.join(SECONDS)
        assert self._process.stderr is not None
        self._process.stderr.close()


def environment_of(folder: Path) -> dict[str, str]:
    """Return the environment of a page's commands: no settings, state in a folder of the page."""
    # Make's own variables make a `make` inside announce that it is one inside.
    others = ("ASSAY_", "MAKE", "MFLAGS")
    inherited = {name: text for name, text in os.environ.items() if not name.startswith(others)}
    paths = os.pathsep.join([str(Path(sys.executable).parent), inherited["PATH"]])
    quiet = {
        "NO_PROXY": "127.0.0.1,localhost",
        "HF_HUB_OFFLINE": "1",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "COLUMNS": "100",
    }
    return {**inherited, "PATH": paths, "XDG_STATE_HOME": str(folder / "state"), **quiet}
