"""The judge: it runs a test's own code in a process that holds no object of the program.

Names that the test does not define are asked of the program: plain data arrives as a copy, and
anything else as a `Remote`, whose operations are questions to the program's process. Comparisons of
plain data happen here. This file is executed in the sandbox, in front of the runner, and imports
only the standard library.
"""

from __future__ import annotations

import builtins
import importlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import ModuleSpec
from itertools import islice
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:  # they run in front of this file, in the same module
    from assay_models.families.code_exec.audit import Audit
    from assay_models.families.code_exec.origins import Origins
    from assay_models.families.code_exec.remote import Remote, remote_parts
    from assay_models.families.code_exec.wire import (
        EXCEPTION_MODULES,
        SHARED_MODULES,
        Caught,
        Channel,
        Lost,
        Peer,
        as_base,
        decode,
        encode,
        named,
        reference_to,
        update,
    )

# Modules that a test may use without importing them, as the program's own import would let it.
# They are the judge's, so that no program answers for `math.isclose`.
_COMMON = """
asyncio bisect cmath collections contextlib copy datetime decimal fractions functools heapq inspect
io itertools json math operator os random re statistics string sys time typing unittest
"""
COMMON_MODULES = frozenset(_COMMON.split())
OWN_FUNCTIONS = {"isclose": "math"}
LIBRARY = sys.stdlib_module_names
# Packages that tests use and the sandbox lacks, with their usual short names. The program must not
# answer in their name: its own `approx` or `allclose` would be the judge of its results.
_PACKAGES = """
absl attr django flask hypothesis jax keras matplotlib mock networkx nose nose2 np numpy nx
pandas parameterized patch pd PIL plt pytest requests scipy seaborn six sk sklearn sns sp sympy
tensorflow testtools tf torch unittest2 MagicMock Mock monkeypatch
"""
PACKAGES = frozenset(_PACKAGES.split())
CHECKERS = re.compile("(np_?)?(assert|approx$|allclose$|isclose$|almost_?equal)")
# Modules by whose name tests mean the program, beside one with the name of the entry point.
_PROGRAMS = """
answer candidate code implementation main module my_code my_module my_solution program solution
solutions submission your_code your_module your_module_name your_solution
"""
PROGRAMS = frozenset(_PROGRAMS.split())
# Questions whose answers hold no value that a test could use.
SILENT = frozenset(("load", "name", "names", "entry", "seed", "share"))
ENDS_OF_LOOPS = (StopIteration, StopAsyncIteration)
MAX_SENT = 100_000


class Unisolated(BaseException):
    """The test needs more of the program than plain data and questions."""


class ProgramExit(SystemExit):
    """A SystemExit that the program has raised, not the test."""


class MissingPackage(ModuleNotFoundError):
    """A test uses a package that the sandbox does not have."""


class Judge:
    """A test's view of the program, without any of the program's objects.

    `helpers` holds the functions that the prompt defines: they are the task's, not the program's.
    """

    def __init__(self, channel: Channel | None, entry_points: Sequence[str]) -> None:
        self.is_lost = self.is_refused = self.is_doubtful = False
        self.has_answers = self.is_sharing = False
        self.audit: Audit | None = None
        self.called: frozenset[str] = frozenset()
        self.helpers: dict[str, Any] = {}
        self._peer = None if channel is None else Peer(channel, self.answer)
        self.is_empty, self._entry_points = channel is None, entry_points
        self._remotes: dict[int, Remote] = {}
        self._callbacks: list[Callable[..., Any]] = []
        self.raised: list[BaseException] = []
        self._exceptions: dict[int, type[BaseException]] = {}
        self._input = sys.stdin, builtins.input
        self._state = self._own_state()
        self._origins, self._is_returning = Origins(), False

    def ask(self, operation: str, *operands: Any) -> Any:
        """Ask the program for an operation and return its value, or raise what it raised.

        Raises:
            Lost: the program's process has ended, or does not keep to the protocol.
            Unisolated: an operand cannot cross.
        """
        if self._peer is None:
            raise LookupError(operation)
        self._begin(operation)
        encoded = [encode(operand, self) for operand in operands]
        value: Any = None
        with Caught() as caught:
            kind, data, printed, changes = self._peer.ask(operation, encoded)
            is_new = self._origins.is_construction(operation, operands)
            self._is_returning = not is_new and operation not in SILENT
            if operation == "call":
                for operand, change in zip(operands[1:], changes, strict=True):
                    if change is not None:
                        update(operand, decode(change, self))
            argument = operation == "call" and type(data) is list and data[0] == "argument"
            value = (
                operands[1][data[1]] if argument else decode(data, self) if kind == "value" else 0
            )
            raised = self._exception(*data) if kind == "raised" else None
        if isinstance(caught.error, MemoryError):
            raise caught.error
        if caught.error is not None:
            self.is_lost = True
            raise Lost
        if printed:
            sys.stdout.write(printed)
        if raised is not None:
            # It would end a loop of the test without a trace.
            self.is_doubtful |= isinstance(raised, ENDS_OF_LOOPS) and operation != "next"
            raise raised
        self.is_doubtful |= self._origins.is_doubtful(operation, operands, value)
        return value

    def _begin(self, operation: str) -> None:
        """Prepare a question: the program needs what the test has changed."""
        if (sys.stdin, builtins.input) != self._input:
            self.refuse()
        if operation not in SILENT:
            self.has_answers = True
            self._share_state()

    def _own_state(self) -> tuple[dict[str, str], str, int, int]:
        limits = sys.getrecursionlimit(), sys.get_int_max_str_digits()
        folder = os.getcwd() if os.path.exists(".") else "."
        return dict(os.environ), folder, *limits

    def _share_state(self) -> None:
        """Give the program the environment, the folder, the limits and the files of the test."""
        assert self._peer is not None
        if self.audit is not None:
            self.audit.share_files()
        if (state := self._own_state()) == self._state:
            return
        (old, *_), (new, *rest) = self._state, state
        self._state = state
        changed = {name: new.get(name) for name in {*old, *new} if old.get(name) != new.get(name)}
        with Caught() as caught:
            kind = self._peer.ask("share", [encode(part, self) for part in (changed, *rest)])[0]
        if caught.error is not None or kind != "value":
            self.refuse()

    def answer(self, operation: str, operands: list[Any]) -> list[Any]:
        """Call a function of the test for the program."""
        if operation != "call":
            raise Lost("the program may call functions of the test, and nothing else")
        number, arguments, named_arguments = operands
        function, self._is_returning = self._callbacks[number], True
        data: Any = None
        with Caught() as caught:
            result = function(*decode(arguments, self), **decode(named_arguments, self))
            data = encode(result, self)
        if caught.error is None:
            return ["value", data]
        kind = next(base for base in type(caught.error).__mro__ if base.__module__ == "builtins")
        return ["raised", [kind.__name__, str(caught.error)]]

    def compare(self, operation: str, default: bool | None, *operands: Any) -> Any:
        """Ask the program for an operation that shows it an expected value.

        An answer other than the default one makes the test doubtful: it is the program's word.
        """
        value = self.ask(operation, *operands)
        self.is_doubtful |= value is not default
        return value

    def refuse(self) -> NoReturn:
        """Raise that the test cannot be run against a program in another process."""
        self.is_refused = True
        raise Unisolated

    def export(self, value: Any) -> list[Any]:
        """Name a value for the program: its own object, by reference, or as a function to call."""
        if isinstance(value, Remote):
            return remote_parts(value)
        plain = as_base(value)
        if type(plain) is not type(value):
            data: list[Any] = encode(plain, self)
            return data
        if reference := reference_to(value, LIBRARY.__contains__):
            return reference
        if isinstance(value, Iterator) and not hasattr(value, "read"):
            return ["iterator", *(encode(part, self) for part in islice(value, MAX_SENT))]
        if not callable(value) or isinstance(value, type):
            self.refuse()
        self._callbacks.append(value)
        return ["callback", len(self._callbacks) - 1]

    def restore(self, tag: str, parts: Sequence[Any]) -> Any:
        """Return what the program has named: a handle, or a class or function of the library."""
        if tag == "handle":
            number, kind = parts
            if type(number) is not int or not isinstance(kind, str):
                raise Lost("a handle without a number")
            if self._is_returning:
                self._origins.returned.add(number)
            return self._remotes.setdefault(number, Remote(self, number, kind))
        if tag == "exception":
            return self._exception_class(*parts)
        if tag != "reference":
            raise Lost(f"an unknown tag: {tag}")
        module, name = parts
        value = named(module, name) if module in SHARED_MODULES or module == "builtins" else None
        is_hidden = name.startswith("_") or (name and isinstance(value, ModuleType))
        if value is None or is_hidden or (module == "builtins" and not isinstance(value, type)):
            raise Lost("a reference to something that is not shared")
        return value

    def name(self, name: str) -> Any:
        """Return what a name means that the test does not define.

        Raises:
            LookupError: nothing.
            MissingPackage: a package that the sandbox lacks.
            Unisolated: a function that would compare the program's results.
        """
        if name in self.helpers:
            return self.helpers[name]
        if name not in self._entry_points:
            if name.startswith("__"):
                raise LookupError(name)
            if name in OWN_FUNCTIONS:
                return named(OWN_FUNCTIONS[name], name)
            if name in COMMON_MODULES and name not in self.called:
                return importlib.import_module(name)
            if name in PACKAGES and (name not in self.called or not name.islower()):
                raise MissingPackage(f"No module named {name!r}", name=name)
            if CHECKERS.match(name):
                self.refuse()
        value = self.ask("name", name)
        self._origins.add(name, value, is_entry=name in self._entry_points)
        return value

    def is_program(self, module: str) -> bool:
        """Return whether a test means the program by the name of a module."""
        return module in PROGRAMS or (
            module not in LIBRARY
            and folded(module) in {folded(name) for name in self._entry_points}
        )

    def names(self) -> list[str]:
        """List the program's public names that no module of Python and no package has."""
        names = [] if self._peer is None else self.ask("names")
        hidden = COMMON_MODULES | PACKAGES | self.helpers.keys() | OWN_FUNCTIONS.keys()
        return [
            name
            for name in names
            if type(name) is str
            and (name in self._entry_points or not (name in hidden or CHECKERS.match(name)))
        ]

    def entry(self) -> Any:
        """Return the function that `check` gets."""
        value = self.ask("entry", list(self._entry_points))
        self._origins.add("".join(self._entry_points[:1]), value, is_entry=True)
        return value

    def shadowing_entries(self) -> list[str]:
        """List the entry points that have the name of one of Python's own functions."""
        return [name for name in self._entry_points if hasattr(builtins, name)]

    def _exception(
        self, kind: list[Any], arguments: Any, attributes: Any, text: str
    ) -> BaseException:
        cls = self._exception_class(*kind)
        values = decode(arguments, self)
        error: BaseException = cls.__new__(cls, *values)
        self.raised.append(error)
        error.args = values
        for name, value in decode(attributes, self).items():
            if not name.startswith("__"):
                setattr(error, name, value)
        if kind[2]:
            error.__dict__["_text"] = str(text)
        return error

    def _exception_class(self, module: str, name: str, own: list[Any]) -> type[BaseException]:
        """Return the class of an exception; one for each class that the program defines."""
        cls = named(module, name) if module in EXCEPTION_MODULES else None
        if not isinstance(cls, type) or not issubclass(cls, BaseException):
            raise Lost("not an exception")
        if issubclass(cls, SystemExit):
            cls = ProgramExit
        for number, title in reversed(own):
            if number not in self._exceptions:
                body = {"__str__": lambda error: error.__dict__.get("_text", "")}
                self._exceptions[number] = type(str(title), (cls,), body)
            cls = self._exceptions[number]
        return cls


def folded(name: str) -> str:
    """Return a name without the differences between those of modules, functions and classes."""
    return name.replace("_", "").lower()


class Names(dict[str, Any]):
    """Python's own names, and behind them those of the program."""

    def __init__(self, judge: Judge) -> None:
        super().__init__(vars(builtins))
        self._judge = judge

    def __missing__(self, name: str) -> Any:
        try:
            return self._judge.name(name)
        except LookupError:
            raise KeyError(name) from None


class ProgramModule(ModuleType):
    """The program under the name of a module that does not exist, such as `solution`."""

    def __init__(self, name: str, judge: Judge, test: ModuleType) -> None:
        super().__init__(name)
        self.__dict__.update(_assay_judge=judge, _assay_test=test)

    def __getattr__(self, name: str) -> Any:
        judge, held = self.__dict__["_assay_judge"], self.__dict__["_assay_test"].__dict__
        if name == "__all__":
            return [
                name for name in judge.names() if name not in held and not hasattr(builtins, name)
            ]
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return judge.name(name)
        except LookupError:
            raise AttributeError(f"the program does not define {name!r}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("__"):
            self.__dict__["_assay_judge"].refuse()
        super().__setattr__(name, value)


class Finder:
    """The first way to import a module that a test names: as the program, from no file."""

    def __init__(self, judge: Judge, test: ModuleType, names: frozenset[str]) -> None:
        self._judge, self._test, self._names = judge, test, names

    def find_spec(self, name: str, path: object, target: object = None) -> ModuleSpec | None:
        """Find the program, if that is what the module is called."""
        package = name.partition(".")[0]
        if not self._judge.is_program(package) or (package in LIBRARY and name not in self._names):
            return None
        # A loader by its methods: the base class is in a module that each judge would import.
        return ModuleSpec(name, self, is_package=True)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the program as a module."""
        return ProgramModule(spec.name, self._judge, self._test)

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing: the program runs in its own process."""
