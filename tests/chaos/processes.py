"""`assay serve` as a real process with a scripted model, and gates that hold its device thread."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from .devices import TIMEOUT_SECONDS, wait_until, wait_until_async
from .servers import Connections

PROGRAM = Path(__file__).parent / "scripted_assay.py"
CARD = """
name = "scripted"
version = 1
family = "command"
"""


class DeviceGate:
    """A FIFO at which a forward pass waits until the test releases it."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self._file: int | None = None

    @property
    def text(self) -> str:
        """The text whose forward pass waits at the gate."""
        return f"wait {self.path}"

    async def wait_for_device(self, seconds: float = TIMEOUT_SECONDS) -> None:
        """Wait until the device is at the gate, where it stays until `release`."""
        await wait_until(self._try_open, seconds)

    def _try_open(self) -> bool:
        try:
            self._file = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            return False
        return True

    def release(self) -> None:
        """Let the device continue."""
        assert self._file is not None
        os.close(self._file)


class Process(Connections):
    """A running `assay serve`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        super().__init__()
        self.process = process
        self.lines: list[str] = []
        self._reading = asyncio.create_task(self._read_log())

    async def _read_log(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.lines.append(line.decode())

    @property
    def log(self) -> str:
        """The text that the process has written to its standard error."""
        return "".join(self.lines)

    async def wait_for_log(self, text: str) -> None:
        """Wait until the log contains a text; fail if the log ends without it."""
        await wait_until(lambda: text in self.log or self._reading.done())
        assert text in self.log, self.log

    async def wait_until_open(self) -> None:
        """Wait until the port is open; models may still be loading."""
        await self.wait_for_log("Application startup complete")
        address = re.search(r"http://127\.0\.0\.1:(\d+)", self.log)
        assert address is not None
        self.port = int(address[1])

    async def queued_tokens(self) -> float:
        """Return the tokens that are admitted and not yet settled."""
        metrics = (await self.get("/metrics")).body
        match = re.search(rb"^assay_queue_tokens\{.*\} (\S+)$", metrics, re.M)
        return 0.0 if match is None else float(match[1])

    async def wait_for_queue(self, tokens: int) -> None:
        """Wait until that many tokens are admitted and not yet settled."""

        async def has_tokens() -> bool:
            return await self.queued_tokens() == tokens

        await wait_until_async(has_tokens)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    async def wait_for_exit(self) -> int:
        """Wait for the end of the process, and return its exit code."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await asyncio.wait({self._reading})
            return await self.process.wait()


@asynccontextmanager
async def serving(
    folder: Path, *, options: str = "", loaded: bool = True, port: int = 0, **variables: str
) -> AsyncIterator[Process]:
    """Run `assay serve` with the command model and an open port; kill it after the block."""
    card = folder / "cards" / "scripted" / "1" / "card.toml"
    card.parent.mkdir(parents=True, exist_ok=True)
    card.write_text(CARD + options)
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("ASSAY_")}
    settings = {"ASSAY_MODELS": "scripted", "ASSAY_REPOSITORY": str(folder / "cards")}
    process = Process(
        await asyncio.create_subprocess_exec(
            sys.executable,
            str(PROGRAM),
            *("serve", "--port", str(port)),
            env={**inherited, **settings, **variables},
            stderr=asyncio.subprocess.PIPE,
        )
    )
    try:
        await process.wait_until_open()
        if loaded:
            await process.wait_for_log("is ready")
        yield process
    finally:
        await process.close_all()
        if process.process.returncode is None:
            process.stop(signal.SIGKILL)
        await process.wait_for_exit()
