"""The sandbox's guarantees: each holds, a breach is detected, and all are tested before serving."""

import asyncio
import contextlib
import logging
import marshal
import os
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.sandboxes import (
    BOUNDS,
    ISOLATED,
    NOT_ISOLATED,
    card_with,
    load,
    outcomes,
    run,
    sandbox_processes,
    scratch_folders,
    skip_without_isolation,
    skip_without_open_sandbox,
    wait_for_exit,
    wait_until,
    with_new_semaphore,
)

from assay_models.base import Options
from assay_models.card import CardError
from assay_models.families.code_exec import model as family
from assay_models.families.code_exec import sandbox, self_test
from assay_models.families.code_exec.sandbox import COMMAND, Bounds, Sandbox, SandboxFailed
from assay_models.families.code_exec.self_test import find_broken_guarantee
from assay_models.items import CodeExecItem

pytestmark = pytest.mark.slow

FAMILIES = Path(sandbox.__file__).parent
PROBE = (FAMILIES / "probe.py").read_text()
LOOP = "import signal\nwhile True:\n    signal.pause()"


@pytest.fixture
def isolated() -> None:
    skip_without_isolation()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A real server of the machine's loopback."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.setblocking(False)
        yield server


def connecting_program(listener: socket.socket) -> str:
    """Return a program that connects to the listener; its `code` is 0 on success."""
    address = listener.getsockname()
    return f"import errno, socket\ncode = socket.socket().connect_ex({address})"


@pytest.mark.usefixtures("isolated")
def test_a_listening_socket_of_the_machine_cannot_be_reached(listener: socket.socket) -> None:
    test = "assert code in (errno.ENETUNREACH, errno.ECONNREFUSED)"
    assert outcomes(connecting_program(listener), test) == ["pass"]
    with pytest.raises(BlockingIOError):
        listener.accept()


def test_a_listening_socket_is_reached_without_isolation(listener: socket.socket) -> None:
    skip_without_open_sandbox()
    assert outcomes(connecting_program(listener), "assert code == 0", sandbox=NOT_ISOLATED) == [
        "pass"
    ]
    listener.accept()[0].close()


@pytest.mark.usefixtures("isolated")
def test_only_pythons_own_files_are_visible(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    program = "import os, sys\nseen = {name for name in os.listdir('/')}\n"
    tests = [
        f"assert not os.path.exists({str(secret)!r})",
        f"assert not os.path.exists({str(Path(__file__))!r})",
        "assert not os.path.exists('/etc/passwd') and not os.path.exists('/proc/self')",
        "assert not seen & {'home', 'proc', 'sys', 'var', 'work', 'mnt', 'bin', 'boot'}",
        "assert os.getcwd() == '/tmp' and os.listdir('.') == [] and not os.environ",
        "import json, sqlite3, ssl, decimal, unittest",
    ]
    assert outcomes(program, *tests) == ["pass"] * len(tests)


@pytest.mark.usefixtures("isolated")
def test_no_installed_package_and_no_name_of_the_host_is_visible() -> None:
    assert sandbox.hidden_paths(), "this interpreter has a folder of packages"
    program = f"""
import importlib.util, os, socket
def packages():
    return [name for path in {sandbox.hidden_paths()!r} for name in os.listdir(path)]
def importable():
    return importlib.util.find_spec("pip") is not None
def host():
    return [socket.gethostname(), os.uname().nodename]
"""
    tests = [
        "assert packages() == []",
        "assert importable() is False",
        "assert host() == ['sandbox', 'sandbox']",
    ]
    assert outcomes(program, *tests) == ["pass"] * len(tests)


@pytest.mark.usefixtures("isolated")
@pytest.mark.parametrize("place", ["/", "/dev", "/usr/lib", os.path.dirname(os.__file__)])
def test_only_the_scratch_folder_is_writable(place: str) -> None:
    program = f"import os\nopen(os.path.join({place!r}, 'x'), 'w')\ndone = True"
    assert outcomes(program, "assert done") == ["error"]
    assert not Path(place, "x").exists()


@pytest.mark.usefixtures("isolated")
def test_a_program_has_no_privileges() -> None:
    user = 65534 if os.geteuid() == 0 else os.geteuid()
    program = """
import ctypes, os
def users():
    return [os.getuid(), os.geteuid()]
def has_no_groups():
    return os.getgroups() in ([], [os.getgid()])
def is_bound():
    return ctypes.CDLL(None).prctl(39, 0, 0, 0, 0) == 1
"""
    tests = [
        f"assert users() == [{user}, {user}]",
        "assert has_no_groups()" if not os.geteuid() else "assert users()",
        "assert is_bound()",
    ]
    assert outcomes(program, *tests) == ["pass"] * len(tests)


def changed_code(old: str, new: str) -> bytes:
    """Return the code that runs in the sandbox, with one place of it changed."""
    texts = [(FAMILIES / f"{name}.py").read_text() for name in sandbox.PARTS]
    assert sum(text.count(old) for text in texts) == 1
    return marshal.dumps([compile(text.replace(old, new), "part", "exec") for text in texts])


SABOTAGE = {
    "network": ("NEW_PROCESSES | NEW_NETWORK", "NEW_PROCESSES"),
    "disk": ('f"size={', 'f"mpol=default" or f"size={'),
    "processes": ("setrlimit(resource.RLIMIT_NPROC, (maximum, maximum))", "RLIMIT_NPROC"),
    "privileges": ('install_filter(request["filter"])', 'install_filter(b"")'),
    "memory": ('for name, maximum in request["limits"].items()', "for name, maximum in ()"),
}


@pytest.mark.usefixtures("isolated")
@pytest.mark.parametrize("guarantee", SABOTAGE)
def test_a_broken_guarantee_is_found(guarantee: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "runner_code", lambda: changed_code(*SABOTAGE[guarantee]))
    # A memory group would hold the bound in place of the limit of a process.
    monkeypatch.setattr(sandbox, "memory_group", lambda limit: contextlib.nullcontext())
    failure = find_broken_guarantee(BOUNDS)
    assert failure is not None
    assert failure.startswith(f"{guarantee}: a probe was not stopped")


@pytest.mark.usefixtures("isolated")
def test_a_visible_file_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        readable = (*sandbox.readable_paths(), folder)
        monkeypatch.setattr(sandbox, "readable_paths", lambda: readable)
        failure = find_broken_guarantee(BOUNDS)
    assert failure is not None
    assert failure.startswith("files: a probe was not stopped")


def test_the_probes_succeed_without_isolation(listener: socket.socket) -> None:
    skip_without_open_sandbox()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        secret = Path(folder, "secret")
        secret.write_text("secret")
        tests = [
            f"assert network({listener.getsockname()[1]}, 'absent')",
            f"assert files({str(secret)!r})",
            f"assert disk({BOUNDS.disk_mb << 20})",
            f"assert processes({BOUNDS.processes})",
        ]
        assert outcomes(PROBE, *tests, sandbox=NOT_ISOLATED) == ["fail"] * len(tests)


@pytest.mark.usefixtures("isolated")
def test_the_error_of_a_broken_sandbox_has_the_step_and_the_systems_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    readable = (*sandbox.readable_paths(), "/absent")
    monkeypatch.setattr(sandbox, "readable_paths", lambda: readable)
    with pytest.raises(SandboxFailed, match=r"^mounts: No such file or directory$"):
        run("done = True", "assert done")


class TestRefusal:
    """The model on a machine where programs cannot be isolated."""

    @pytest.fixture(autouse=True)
    def _no_isolation(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(bounds: Bounds) -> str:
            return self_test.with_remedy("namespaces: Operation not permitted")

        monkeypatch.setattr(family, "find_broken_guarantee", broken)

    def test_the_refusal_names_the_guarantee_and_the_remedy(self) -> None:
        with pytest.raises(CardError) as caught:
            load()
        message = str(caught.value)
        assert message.startswith("code-exec@1: programs cannot be shut off here: namespaces:")
        assert "Operation not permitted" in message
        assert "user.max_user_namespaces" in message
        assert 'isolation = "best_effort"' in message

    async def test_best_effort_serves_and_flags_every_result(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        await asyncio.to_thread(skip_without_open_sandbox)
        with caplog.at_level(logging.WARNING):
            model = await asyncio.to_thread(load, card_with(isolation="best_effort"))
        assert "NOT shut off: namespaces" in caplog.text
        item = CodeExecItem(response="```\ndef f():\n    return 1\n```", tests="assert f()")
        prepared = model.prepare([item], Options())
        (score,) = model.finish(prepared, list(await model.predict(prepared.inputs)), Options())
        assert score.score == 1.0
        assert score.flags == ("not_isolated",)

    def test_best_effort_is_refused_where_no_program_runs(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sandbox, "COMMAND", ("/bin/false",))
        with pytest.raises(CardError, match="cannot be run here at all: process"):
            load(card_with(isolation="best_effort"))

    def test_other_systems_than_linux_are_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.platform", "darwin")
        with pytest.raises(CardError, match="Linux only"):
            load()


def test_forbidden_namespaces_are_named_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the C library's call fail with EPERM before any other, as in a container."""
    refuse = "def refused(flags):\n    ctypes.set_errno(1)\n    return -1\n"
    place = "\n\ndef main() -> NoReturn:"
    changed = changed_code(place, f"\n\n{refuse}\nlibc.unshare = refused{place}")
    monkeypatch.setattr(sandbox, "runner_code", lambda: changed)
    failure = find_broken_guarantee(BOUNDS)
    assert failure is not None
    assert failure.startswith(
        "namespaces: Operation not permitted. To mend it, let user namespaces"
    )


async def started(pending: "asyncio.Future[Any]", processes: int) -> list[psutil.Process]:
    """Wait for a sandbox whose candidate is running, and return its processes."""
    await wait_until(lambda: len(sandbox_processes()) >= processes or pending.done())
    return sandbox_processes()


@pytest.mark.parametrize(
    "box", [pytest.param(ISOLATED, id="shut"), pytest.param(NOT_ISOLATED, id="open")]
)
async def test_a_cancelled_caller_ends_every_process(box: Sandbox) -> None:
    await asyncio.to_thread(
        skip_without_isolation if box.is_isolated else skip_without_open_sandbox
    )
    before = scratch_folders()
    program = "import os\nos.fork()\n" + LOOP
    pending = asyncio.ensure_future(box.run(program, ["assert done"]))
    processes = await started(pending, 4)
    assert len(processes) >= 4, "launcher, supervisor, candidate and its child"
    pending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pending
    await wait_for_exit(processes)
    assert sandbox_processes() == []
    assert scratch_folders() == before


@pytest.mark.usefixtures("isolated")
async def test_cancellation_at_any_moment_leaves_no_process_and_no_folder() -> None:
    before = scratch_folders()
    for iterations in range(0, 40, 3):
        pending = asyncio.ensure_future(ISOLATED.run(LOOP, ["assert done"]))
        for _ in range(iterations):
            await asyncio.sleep(0)
        processes = sandbox_processes()
        pending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pending
        await wait_for_exit(processes)
    await wait_until(lambda: sandbox_processes() == [])
    assert scratch_folders() == before


@pytest.mark.usefixtures("isolated")
async def test_cancellation_during_a_start_does_not_wait_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    is_starting, is_cancelled, waited = threading.Event(), threading.Event(), []

    class SlowStart(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            is_starting.set()
            waited.append(is_cancelled.wait(20))  # False if the event loop is held for that long
            super().__init__(*arguments, **options)

    monkeypatch.setattr(subprocess, "Popen", SlowStart)
    pending = asyncio.ensure_future(ISOLATED.run(LOOP, ["assert done"]))
    await asyncio.to_thread(is_starting.wait)
    pending.cancel()
    asyncio.get_running_loop().call_later(0, is_cancelled.set)
    with pytest.raises(asyncio.CancelledError):
        await pending
    assert waited == [True]
    await wait_until(lambda: sandbox_processes() == [])


@pytest.mark.usefixtures("isolated")
async def test_a_killed_launcher_ends_all_processes() -> None:
    pending = asyncio.ensure_future(ISOLATED.run(LOOP, ["assert done"]))
    processes = await started(pending, 3)
    launcher, *_ = sandbox_processes()
    launcher.kill()
    with pytest.raises(SandboxFailed, match="without a verdict"):
        await pending
    await wait_for_exit(processes)


@pytest.mark.usefixtures("isolated")
async def test_two_hundred_programs_run_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    model = with_new_semaphore(await asyncio.to_thread(load), 3)
    launchers: list[int] = []
    start: Callable[..., object] = subprocess.Popen

    def counted(*arguments: object, **options: object) -> object:
        process = start(*arguments, **options)
        if arguments == (COMMAND,):  # and not the parser of programs
            launchers.append(len(psutil.Process().children()))
        return process

    monkeypatch.setattr(subprocess, "Popen", counted)
    responses = [f"```\ndef f():\n    return {number}\n```" for number in range(200)]
    items = [CodeExecItem(response=response, tests="assert f() < 150") for response in responses]
    inputs = [model.prepare([item], Options()).inputs[0] for item in items]
    parsers = len(psutil.Process().children())
    raws = await model.predict(inputs)
    assert [raw[0] for raw in raws] == [1.0] * 150 + [0.0] * 50
    assert len(launchers) == 200
    assert max(launchers) - parsers <= 3
    assert sandbox_processes() == []
