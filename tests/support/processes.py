"""`assay serve` as a real process with the reference model, and raw connections to it."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

ASSAY = (sys.executable, "-c", "from assay.cli import app; app()")


@dataclass(frozen=True)
class Server:
    """A running `assay serve`, and what it has printed until its model was ready."""

    process: subprocess.Popen[str]
    url: str
    port: int
    output: str

    def read_until(self, text: str) -> str:
        """Return the lines of the log up to the next one with the text."""
        assert self.process.stderr is not None
        output = ""
        for line in self.process.stderr:
            output += line
            if text in line:
                return output
        raise AssertionError(f"the server ended without printing {text!r}: {output}")

    def connect(self) -> socket.socket:
        """Open a connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)


@contextmanager
def serving(*options: str, prefix: Sequence[str] = (), **variables: str) -> Iterator[Server]:
    """Run `assay serve` until the end of the block.

    Args:
        options: of the command.
        prefix: a command that runs the server, such as `prlimit`.
        variables: its environment, besides this process's.
    """
    environment = {name: text for name, text in os.environ.items() if "ASSAY_" not in name}
    process = subprocess.Popen(
        [*prefix, *ASSAY, "serve", *options],
        env={**environment, "ASSAY_MODELS": "reference", **variables},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        starting = Server(process, "", 0, "")
        output = starting.read_until("is ready")
        address = re.search(r"http://127\.0\.0\.1:(\d+)", output)
        assert address is not None
        yield Server(process, address[0], int(address[1]), output)
    finally:
        process.kill()
        process.communicate()
