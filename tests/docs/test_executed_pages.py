"""The blocks of the pages run against a live server, and print what the pages say they print."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.paths import ROOT

from .blocks import EXECUTED_LANGUAGES, Block, blocks_of, pages
from .outputs import TOLERANCE, DifferentOutput, check_output
from .sessions import (
    DEFAULT_PORT,
    Interpreter,
    Server,
    Shell,
    commands_of,
    environment_of,
    is_server,
)

pytestmark = [pytest.mark.slow, pytest.mark.weights]

# The entries of the checkout that pages name.
LINKED = (".venv", "Makefile", "benchmarks", "clients", "deploy", "docs", "models", "service")
EXECUTED = [
    page
    for page in pages()
    if any(block.language in EXECUTED_LANGUAGES and not block.reason for block in blocks_of(page))
]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of the embedded models.

    Scores are not kept, so that a page's output does not depend on the pages that ran before it.
    """
    folder = tmp_path_factory.mktemp("server")
    environment = {**environment_of(folder), "ASSAY_CACHE_BYTES": "0"}
    running = Server("assay serve", folder, environment)
    running.log()
    yield running
    running.close()


class Page:
    """The sessions of one page, and the ports of the servers that its addresses stand for."""

    def __init__(self, folder: Path, server: Server, stack: ExitStack) -> None:
        self._folder = folder
        self._environment = environment_of(folder)
        self._stack = stack
        self._embedded = server
        self._ports = {DEFAULT_PORT: server.port}
        self._shell: Shell | None = None
        self._interpreter: Interpreter | None = None

    def write_file(self, block: Block) -> None:
        """Write the text of a block to the file that its directive names."""
        path = self._folder / block.directives["file"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self._to_live(block.text), encoding="utf-8")

    def run(self, block: Block, printed: str | None) -> None:
        """Run a block and compare its output with what the page prints.

        Args:
            block: of the console or of Python.
            printed: the block of output that follows it, if there is one.

        Raises:
            DifferentOutput: the output is not the printed one, or a command failed.
        """
        tolerance = float(block.directives.get("tolerance", TOLERANCE))
        if block.language == "python":
            check_output(printed or "", self._python(block), tolerance)
            return
        commands = list(commands_of(block.lines))
        for number, (command, lines) in enumerate(commands, 1):
            last = number == len(commands)
            expected = printed if last and printed and not lines else "\n".join(lines)
            check_output(expected, self._console(command, expected), tolerance)

    def _python(self, block: Block) -> str:
        if self._interpreter is None:
            self._interpreter = Interpreter(self._folder, self._environment)
            self._stack.callback(self._interpreter.close)
        failed, output = self._interpreter.run(self._to_live(block.text))
        if failed:
            raise DifferentOutput(output)
        return self._to_printed(output)

    def _console(self, command: str, expected: str) -> str:
        assert "pip install" not in command, "a page that runs must not change the environment"
        if is_server(command) and not expected.startswith("error:"):
            return self._to_printed(self._serve(command))
        if self._shell is None:
            self._shell = Shell(self._folder, self._environment)
            self._stack.callback(self._shell.close)
        output, status = self._shell.run(self._to_live(command))
        if status and not expected:
            raise DifferentOutput(f"{command}\nended with {status}:\n{output}")
        return self._to_printed(output)

    def _serve(self, command: str) -> str:
        if command in ("make serve", "assay serve"):
            return self._embedded.log()
        started = Server(command, self._folder, self._environment)
        self._stack.callback(started.close)
        self._ports[started.printed_port] = started.port
        return started.log()

    def _to_live(self, text: str) -> str:
        for printed, port in self._ports.items():
            for host in ("127.0.0.1", "localhost"):
                text = text.replace(f"{host}:{printed}", f"{host}:{port}")
        return text

    def _to_printed(self, text: str) -> str:
        for printed, port in self._ports.items():
            text = text.replace(f":{port}", f":{printed}")
        return text


def _checkout(folder: Path) -> Path:
    """Return a folder with links into the checkout, in which a page may write."""
    for name in LINKED:
        (folder / name).symlink_to(ROOT / name)
    return folder


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("page", EXECUTED, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_blocks_of_a_page_print_what_it_says(
    page: Path, server: Server, tmp_path: Path
) -> None:
    blocks = blocks_of(page)
    problems = []
    with ExitStack() as stack:
        session = Page(_checkout(tmp_path), server, stack)
        for block, following in zip(blocks, [*blocks[1:], None], strict=True):
            printed = following.text if following is not None and following.is_output else None
            if block.reason:
                continue
            if "file" in block.directives:
                session.write_file(block)
            elif block.language in EXECUTED_LANGUAGES:
                try:
                    session.run(block, printed)
                except DifferentOutput as problem:
                    problems.append(f"{block.place}\n{problem}")
    assert not problems, "\n\n".join(problems)
