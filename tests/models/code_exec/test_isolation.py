"""The sandbox's promises: each is kept, would be missed, and is proven before a model is served."""

import asyncio
import logging
import marshal
import os
import socket
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import psutil
import pytest
from support.sandboxes import (
    BOUNDS,
    OPEN,
    SHUT,
    card_with,
    end_of,
    folders,
    load,
    need_isolation,
    need_open,
    outcomes,
    run,
    runners,
    until,
    with_turns,
)

from assay_models.base import Options
from assay_models.card import CardError
from assay_models.families.code_exec import model as family
from assay_models.families.code_exec import sandbox, self_test
from assay_models.families.code_exec.sandbox import Bounds, Sandbox, SandboxFailed
from assay_models.families.code_exec.self_test import broken_promise
from assay_models.items import CodeExecItem

FAMILIES = Path(sandbox.__file__).parent
PROBE = (FAMILIES / "probe.py").read_text()
LOOP = "import signal\nwhile True:\n    signal.pause()"


@pytest.fixture
def isolated() -> None:
    need_isolation()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A real server of the machine's loopback."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen()
        one.setblocking(False)
        yield one


def caller(listener: socket.socket) -> str:
    """A program that calls there; 0 if somebody answers."""
    address = listener.getsockname()
    return f"import errno, socket\ncode = socket.socket().connect_ex({address})"


@pytest.mark.usefixtures("isolated")
def test_a_listening_socket_of_the_machine_cannot_be_reached(listener: socket.socket) -> None:
    test = "assert code in (errno.ENETUNREACH, errno.ECONNREFUSED)"
    assert outcomes(caller(listener), test) == ["pass"]
    with pytest.raises(BlockingIOError):
        listener.accept()


def test_it_is_reached_without_isolation(listener: socket.socket) -> None:
    need_open()
    assert outcomes(caller(listener), "assert code == 0", sandbox=OPEN) == ["pass"]
    listener.accept()[0].close()


@pytest.mark.usefixtures("isolated")
def test_of_the_files_only_pythons_own_are_there(tmp_path: Path) -> None:
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
@pytest.mark.parametrize("place", ["/", "/dev", "/usr/lib", os.path.dirname(os.__file__)])
def test_nothing_can_be_written_but_in_the_scratch_folder(place: str) -> None:
    program = f"import os\nopen(os.path.join({place!r}, 'x'), 'w')"
    assert outcomes(program, "pass") == ["error"]
    assert not Path(place, "x").exists()


@pytest.mark.usefixtures("isolated")
def test_a_program_is_nobody() -> None:
    tests = [
        f"assert os.getuid() == os.geteuid() == {65534 if os.geteuid() == 0 else os.geteuid()}",
        "assert not os.getgroups() or os.getgroups() == [os.getgid()]"
        if not os.geteuid()
        else "0 < 1",
        "import ctypes; assert ctypes.CDLL(None).prctl(39, 0, 0, 0, 0) == 1",
        "assert os.getppid() == 1",
    ]
    assert outcomes("import os", *tests) == ["pass"] * len(tests)


SABOTAGE = {
    "network": (" | NEW_NETWORK", ""),
    "disk": ('f"size={', 'f"mpol=default" or f"size={'),
    "processes": ("setrlimit(resource.RLIMIT_NPROC, (most, most))", "RLIMIT_NPROC"),
    "privileges": ('if code := request["filter"]', "if code := b''"),
    "memory": ('for name, most in request["limits"].items()', "for name, most in ()"),
}


@pytest.mark.usefixtures("isolated")
@pytest.mark.parametrize("promise", SABOTAGE)
def test_a_promise_that_is_not_kept_is_noticed(
    promise: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = SABOTAGE[promise]
    control = (FAMILIES / "canary.py").read_text()
    runner = (FAMILIES / "runner.py").read_text()
    assert runner.count(old) == 1
    parts = [compile(text, "part", "exec") for text in (control, runner.replace(old, new))]
    monkeypatch.setattr(sandbox, "_runner", lambda: marshal.dumps(parts))
    told = broken_promise(BOUNDS)
    assert told is not None
    assert told.startswith(f"{promise}: a probe was not stopped")


@pytest.mark.usefixtures("isolated")
def test_a_file_that_is_seen_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        readable = (*sandbox._readable(), folder)
        monkeypatch.setattr(sandbox, "_readable", lambda: readable)
        told = broken_promise(BOUNDS)
    assert told is not None
    assert told.startswith("files: a probe was not stopped")


def test_without_isolation_the_probes_get_through(listener: socket.socket) -> None:
    need_open()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        secret = Path(folder, "secret")
        secret.write_text("secret")
        tests = [
            f"assert network({listener.getsockname()[1]}, 'nobody')",
            f"assert files({str(secret)!r})",
            f"assert disk({BOUNDS.disk_mb << 20})",
            f"assert processes({BOUNDS.processes})",
        ]
        assert outcomes(PROBE, *tests, sandbox=OPEN) == ["fail"] * len(tests)


@pytest.mark.usefixtures("isolated")
def test_a_reason_for_a_broken_sandbox_is_the_systems_own() -> None:
    beyond = SHUT.bounds.model_copy(update={"disk_mb": 1 << 50})
    with pytest.raises((SandboxFailed, OverflowError)):
        run("pass", "pass", sandbox=Sandbox(beyond, isolated=True))


class TestRefusal:
    """What a model does where programs cannot be shut off."""

    @pytest.fixture(autouse=True)
    def _nowhere(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(bounds: Bounds) -> str:
            return self_test._told("namespaces: Operation not permitted")

        monkeypatch.setattr(family, "broken_promise", broken)

    def test_it_refuses_and_says_which_promise_and_how_to_mend_it(self) -> None:
        with pytest.raises(CardError) as caught:
            load()
        told = str(caught.value)
        assert told.startswith("code-exec@1: programs cannot be shut off here: namespaces:")
        assert "Operation not permitted" in told
        assert "user.max_user_namespaces" in told
        assert 'isolation = "best_effort"' in told

    async def test_told_to_it_serves_and_says_so_each_time(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        await asyncio.to_thread(need_open)
        with caplog.at_level(logging.WARNING):
            model = await asyncio.to_thread(load, card_with(isolation="best_effort"))
        assert "NOT shut off: namespaces" in caplog.text
        item = CodeExecItem(response="```\ndef f():\n    return 1\n```", tests="assert f()")
        prepared = model.prepare([item], Options())
        (score,) = model.finish(prepared, list(await model.predict(prepared.inputs)), Options())
        assert score.score == 1.0
        assert score.flags == ("not_isolated",)

    def test_where_nothing_runs_at_all_it_refuses_all_the_same(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sandbox, "COMMAND", ("/bin/false",))
        with pytest.raises(CardError, match="cannot be run here at all: process"):
            load(card_with(isolation="best_effort"))

    def test_elsewhere_than_on_linux_it_refuses(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.platform", "darwin")
        with pytest.raises(CardError, match="Linux only"):
            load()


def test_where_namespaces_are_forbidden_the_proof_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container: the C library's call is made to fail with EPERM, before any other."""
    refuse = "def refused(flags):\n    ctypes.set_errno(1)\n    return -1\n"
    runner = (FAMILIES / "runner.py").read_text()
    place = "\n\ndef main() -> NoReturn:"
    assert runner.count(place) == 1
    forbidden = runner.replace(place, f"\n\n{refuse}\nlibc.unshare = refused{place}")
    parts = [compile(forbidden, "part", "exec")]
    monkeypatch.setattr(sandbox, "_runner", lambda: marshal.dumps(parts))
    told = broken_promise(BOUNDS)
    assert told is not None
    assert told.startswith("namespaces: Operation not permitted. To mend it, let user namespaces")


async def started(pending: "asyncio.Future[object]", processes: int) -> list[psutil.Process]:
    """The processes of a sandbox whose candidate is at work."""
    await until(lambda: len(runners()) >= processes or pending.done())
    return runners()


@pytest.mark.parametrize("box", [pytest.param(SHUT, id="shut"), pytest.param(OPEN, id="open")])
async def test_a_cancelled_caller_ends_every_process(box: Sandbox) -> None:
    await asyncio.to_thread(need_isolation if box.isolated else need_open)
    before = folders()
    program = "import os\nos.fork()\n" + LOOP
    pending = asyncio.ensure_future(box.run(program, ["pass"]))
    processes = await started(pending, 4)
    assert len(processes) >= 4, "door, keeper, candidate and its child"
    pending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pending
    await end_of(processes)
    assert runners() == []
    assert folders() == before


@pytest.mark.usefixtures("isolated")
async def test_cancelled_at_any_moment_it_leaves_nothing() -> None:
    before = folders()
    for turns in range(0, 40, 3):
        pending = asyncio.ensure_future(SHUT.run(LOOP, ["pass"]))
        for _ in range(turns):
            await asyncio.sleep(0)
        seen = runners()
        pending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pending
        await end_of(seen)
    await until(lambda: runners() == [])
    assert folders() == before


@pytest.mark.usefixtures("isolated")
async def test_a_killed_door_takes_all_with_it() -> None:
    pending = asyncio.ensure_future(SHUT.run(LOOP, ["pass"]))
    processes = await started(pending, 3)
    door, *_ = runners()
    door.kill()
    with pytest.raises(SandboxFailed, match="without a verdict"):
        await pending
    await end_of(processes)


@pytest.mark.usefixtures("isolated")
async def test_two_hundred_programs_run_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    model = with_turns(await asyncio.to_thread(load), 3)
    doors: list[int] = []
    start: Callable[..., Awaitable[object]] = asyncio.create_subprocess_exec

    async def counted(*arguments: object, **options: object) -> object:
        process = await start(*arguments, **options)
        doors.append(len(psutil.Process().children()))
        return process

    monkeypatch.setattr(asyncio, "create_subprocess_exec", counted)
    responses = [f"```\ndef f():\n    return {number}\n```" for number in range(200)]
    items = [CodeExecItem(response=one, tests="assert f() < 150") for one in responses]
    inputs = [model.prepare([item], Options()).inputs[0] for item in items]
    parsers = len(psutil.Process().children())
    raws = await model.predict(inputs)
    assert [raw[0] for raw in raws] == [1.0] * 150 + [0.0] * 50
    assert len(doors) == 200
    assert max(doors) - parsers <= 3
    assert runners() == []
