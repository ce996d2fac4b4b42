"""An audit of judges: none runs code of the program, or shares state with it unseen.

This file is executed in the sandbox, in front of the runner, and imports only the standard library.
"""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

if TYPE_CHECKING:  # it runs in front of this file, in the same module
    from assay_models.families.code_exec.wire import PLAIN_CLASSES

STARTS = frozenset(("subprocess.Popen", "os.exec", "os.posix_spawn", "os.system"))
# The modules of Python that make code of their own from names, and none of a text that they get.
_BUILDERS = "ast collections dataclasses enum functools inspect typing unittest.mock"
BUILDERS = frozenset(_BUILDERS.split())
LOADERS = ("importlib", "_frozen_importlib", "zipimport", "runpy", "pkgutil")
_PLAIN_BUILTINS = "set frozenset complex bytearray range slice"
PLAIN_BUILTINS = frozenset(_PLAIN_BUILTINS.split())
# What a test replaces or records by these is its own process's, and not the program's.
_TOOLS = """
patch monkeypatch mock Mock MagicMock AsyncMock assertLogs assertNoLogs assertWarns
assertWarnsRegex catch_warnings redirect_stderr getcontext setcontext localcontext inspect capsys
capfd caplog
"""
TOOLS = frozenset(_TOOLS.split())


class Audited(Protocol):
    """The judge, as far as its audit needs it."""

    has_answers: bool

    def refuse(self) -> NoReturn:
        """Raise that the test cannot be run against a program in another process."""

    def is_program(self, module: str) -> bool:
        """Return whether a test means the program by the name of a module."""


class Audit:
    """A hook for all that a judge does: no text and no file of the program becomes its code."""

    def __init__(self, judge: Audited, text: str) -> None:
        self._judge, self._text = judge, text
        self.folder = os.path.realpath(os.getcwd())
        self.has_files = self._has_read = False
        self._checks: dict[str, Callable[..., None]] = {
            "open": self._open,
            "import": lambda module, path, *_: self._load(path),
            "ctypes.dlopen": self._load,
            "os.mkdir": self._make,
            "compile": self._compile,
            "marshal.loads": self._unmarshal,
            "marshal.load": self._unmarshal,
            "pickle.find_class": self._find_class,
            **dict.fromkeys(STARTS, lambda *_: self._judge.refuse()),
        }

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Check one event, as `sys.addaudithook` describes it.

        Raises:
            Unisolated: the program's code would run here.
        """
        if check := self._checks.get(event):
            check(*arguments)

    def share_files(self) -> None:
        """Let the program use the files that the test has made for it."""
        if not self.has_files:
            return
        for folder, folders, files in os.walk(self.folder):
            for name in (*folders, *files):
                with suppress(OSError):
                    os.chmod(os.path.join(folder, name), 0o777)  # noqa: S103 in the scratch folder

    def _is_inside(self, path: object) -> bool:
        """Return whether a file is where programs may write."""
        return self._name_inside(path) is not None

    def _name_inside(self, path: object) -> str | None:
        """Return the name of a file where programs may write; None for any other."""
        if not isinstance(path, str | bytes | os.PathLike):
            return None
        given = os.fsdecode(path)
        place = os.path.realpath(given)
        is_inside = place == self.folder or place.startswith(f"{self.folder}/")
        return os.path.basename(given) if is_inside else None

    def _open(self, path: object, mode: object, flags: int) -> None:
        file = self._name_inside(path)
        if file is None:
            return
        self.has_files |= bool(flags & os.O_CREAT)
        if flags & os.O_ACCMODE == os.O_WRONLY:
            return
        self._has_read = True
        name, _, end = file.partition(".")
        is_program = end == "py" and self._judge.is_program(name)
        if is_program or module_of(sys._getframe(2)).startswith(LOADERS):
            self._judge.refuse()

    def _load(self, path: object) -> None:
        if self._is_inside(path) or (path and self._has_read and not str(path).startswith("/")):
            self._judge.refuse()

    def _make(self, *arguments: object) -> None:
        self.has_files = True

    def _compile(self, source: object, name: object) -> None:
        """Refuse a text that is neither the test's own nor made by Python."""
        if not (self._judge.has_answers or self._has_read):
            return
        module = module_of(sys._getframe(2))
        if module in BUILDERS or module.startswith("importlib"):
            return
        text = source.decode(errors="replace") if isinstance(source, bytes) else source
        if not isinstance(text, str) or text.strip() not in self._text:
            self._judge.refuse()

    def _unmarshal(self, *arguments: object) -> None:
        is_import = module_of(sys._getframe(2)).startswith(("importlib", "_frozen_importlib"))
        if not is_import and (self._judge.has_answers or self._has_read):
            self._judge.refuse()

    def _find_class(self, module: str, name: str) -> None:
        is_plain = f"{module}.{name}" in PLAIN_CLASSES or (
            module == "builtins" and name in PLAIN_BUILTINS
        )
        if not is_plain and (self._judge.has_answers or self._has_read):
            self._judge.refuse()


def module_of(frame: FrameType) -> str:
    """Return the name of the module whose code runs in a frame."""
    return str(frame.f_globals.get("__name__", ""))


def shares_state(tree: ast.AST, modules: Iterable[str]) -> bool:
    """Return whether a test uses a tool that works within one process, or changes a module."""
    nodes = [*ast.walk(tree)]
    names = {getattr(node, "attr", getattr(node, "id", "")) for node in nodes}
    names |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    changed = {root_of(target) for node in nodes for target in targets_of(node)}
    own = {node.id for node in nodes if isinstance(node, ast.Name) and type(node.ctx) is ast.Store}
    known = {*modules, *imported_as(nodes)} - own
    return not TOOLS.isdisjoint(names) or not known.isdisjoint(changed)


def imported_as(nodes: Iterable[ast.AST]) -> list[str]:
    """List the names that a test gives to modules of Python, and to what is in them."""
    return [
        (alias.asname or alias.name).partition(".")[0]
        for node in nodes
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
        if (getattr(node, "module", None) or alias.name).partition(".")[0]
        in sys.stdlib_module_names
    ]


def targets_of(node: ast.AST) -> list[ast.expr]:
    """List the attributes and items that a statement or a call of `setattr` changes."""
    if isinstance(node, ast.Assign | ast.Delete):
        targets = node.targets
    elif isinstance(node, ast.AugAssign | ast.AnnAssign):
        targets = [node.target]
    elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("setattr", "delattr"):
        return node.args[:1]
    else:
        return []
    return [target for target in targets if isinstance(target, ast.Attribute | ast.Subscript)]


def root_of(target: ast.expr) -> str:
    """Return the name whose attributes an expression is made of; none of those of `environ`."""
    if isinstance(target, ast.Subscript) and isinstance(target.value, ast.Name):
        return ""
    while isinstance(target, ast.Attribute | ast.Subscript):
        if getattr(target, "attr", "") == "environ":
            return ""
        target = target.value
    return getattr(target, "id", "")
