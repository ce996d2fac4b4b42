"""`assay serve` as a real process with a model that obeys, and places to meet its device thread."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from .devices import SECONDS, eventually, until
from .servers import Callers

PROGRAM = Path(__file__).parent / "scripted_assay.py"
CARD = """
name = "scripted"
version = 1
family = "obedient"
"""


class Meeting:
    """A FIFO at which a device waits until the test has come and gone."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self._file: int | None = None

    @property
    def text(self) -> str:
        """The text whose forward pass waits here."""
        return f"wait {self.path}"

    async def met(self, seconds: float = SECONDS) -> None:
        """The device is here, and stays until `leave`."""
        await until(self._come, seconds)

    def _come(self) -> bool:
        try:
            self._file = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            return False
        return True

    def leave(self) -> None:
        assert self._file is not None
        os.close(self._file)


class Process(Callers):
    """A running `assay serve`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        super().__init__()
        self.process = process
        self.lines: list[str] = []
        self._listening = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.lines.append(line.decode())

    @property
    def told(self) -> str:
        return "".join(self.lines)

    async def said(self, text: str) -> None:
        await until(lambda: text in self.told or self._listening.done())
        assert text in self.told, self.told

    async def opened(self) -> None:
        """Its address is open; its models may still be loading."""
        await self.said("Application startup complete")
        address = re.search(r"http://127\.0\.0\.1:(\d+)", self.told)
        assert address is not None
        self.port = int(address[1])

    async def queued(self) -> float:
        """Tokens admitted and not yet settled."""
        found = re.search(
            rb"^assay_queue_tokens\{.*\} (\S+)$", (await self.get("/metrics")).body, re.M
        )
        return 0.0 if found is None else float(found[1])

    async def holds(self, tokens: int) -> None:
        """So many tokens are admitted and not yet settled."""

        async def hold() -> bool:
            return await self.queued() == tokens

        await eventually(hold)

    def stop(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    async def ended(self) -> int:
        """Its exit code, once it is gone."""
        async with asyncio.timeout(SECONDS):
            await asyncio.wait({self._listening})
            return await self.process.wait()


@asynccontextmanager
async def serving(
    folder: Path, *, options: str = "", loaded: bool = True, port: int = 0, **variables: str
) -> AsyncIterator[Process]:
    """`assay serve` with the obedient model, its address open; gone after the block."""
    card = folder / "cards" / "scripted" / "1" / "card.toml"
    card.parent.mkdir(parents=True, exist_ok=True)
    card.write_text(CARD + options)
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("ASSAY_")}
    chosen = {"ASSAY_MODELS": "scripted", "ASSAY_REPOSITORY": str(folder / "cards")}
    process = Process(
        await asyncio.create_subprocess_exec(
            sys.executable,
            str(PROGRAM),
            *("serve", "--port", str(port)),
            env={**inherited, **chosen, **variables},
            stderr=asyncio.subprocess.PIPE,
        )
    )
    try:
        await process.opened()
        if loaded:
            await process.said("is ready")
        yield process
    finally:
        await process.hang_up()
        if process.process.returncode is None:
            process.stop(signal.SIGKILL)
        await process.ended()
