"""The judge: it runs a test's own code in a process that holds no object of the program.

Names that the test does not define are asked of the program: plain data arrives as a copy, and
anything else as a `Remote`, whose operations are questions to the program's process. Comparisons of
plain data happen here. This file is executed in the sandbox, in front of the runner, and imports
only the standard library.
"""

from __future__ import annotations

import builtins
import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import ModuleSpec
from itertools import islice
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:  # they run in front of this file, in the same module
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
# Packages that tests use and the sandbox lacks. The program must not answer in their name: its own
# `approx` or `allclose` would be the judge of its results.
_PACKAGES = """
absl attr django flask hypothesis jax keras matplotlib mock nose nose2 numpy pandas parameterized
PIL pytest requests scipy seaborn six sklearn sympy tensorflow testtools torch unittest2
"""
PACKAGES = frozenset(_PACKAGES.split())
ENDS_OF_LOOPS = (StopIteration, StopAsyncIteration)
MAX_SENT = 100_000


class Unisolated(BaseException):
    """The test needs more of the program than plain data and questions."""


class ProgramExit(SystemExit):
    """A SystemExit that the program has raised, not the test."""


class Judge:
    """A test's view of the program, without any of the program's objects."""

    def __init__(self, channel: Channel | None, entry_points: Sequence[str]) -> None:
        self.is_lost = self.is_refused = self.is_doubtful = False
        self._peer = None if channel is None else Peer(channel, self.answer)
        self.is_empty, self._entry_points = channel is None, entry_points
        self._remotes: dict[int, Remote] = {}
        self._callbacks: list[Callable[..., Any]] = []
        self._exceptions: dict[int, type[BaseException]] = {}
        self._input = sys.stdin, builtins.input

    def ask(self, operation: str, *operands: Any) -> Any:
        """Ask the program for an operation and return its value, or raise what it raised.

        Raises:
            Lost: the program's process has ended, or does not keep to the protocol.
            Unisolated: an operand cannot cross.
        """
        if self._peer is None:
            raise LookupError(operation)
        if (sys.stdin, builtins.input) != self._input:
            self.refuse()
        encoded = [encode(operand, self) for operand in operands]
        value: Any = None
        with Caught() as caught:
            kind, data, printed, changes = self._peer.ask(operation, encoded)
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
        return value

    def answer(self, operation: str, operands: list[Any]) -> list[Any]:
        """Call a function of the test for the program."""
        if operation != "call":
            raise Lost("the program may call functions of the test, and nothing else")
        number, arguments, named_arguments = operands
        function = self._callbacks[number]
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
        """Return what the program has under a name.

        Raises:
            LookupError: nothing.
        """
        if name in OWN_FUNCTIONS:
            return named(OWN_FUNCTIONS[name], name)
        return self.ask("name", name)

    def names(self) -> list[str]:
        """List the program's public names."""
        return (
            [] if self._peer is None else [name for name in self.ask("names") if type(name) is str]
        )

    def entry(self) -> Any:
        """Return the function that `check` gets."""
        return self.ask("entry", list(self._entry_points))

    def shadowing_entries(self) -> list[str]:
        """List the entry points that have the name of one of Python's own functions."""
        return [name for name in self._entry_points if hasattr(builtins, name)]

    def _exception(
        self, kind: list[Any], arguments: Any, attributes: Any, text: str
    ) -> BaseException:
        cls = self._exception_class(*kind)
        values = decode(arguments, self)
        error: BaseException = cls.__new__(cls, *values)
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


class Names(dict[str, Any]):
    """Python's own names, and behind them those of the program."""

    def __init__(self, judge: Judge, called: frozenset[str]) -> None:
        super().__init__(vars(builtins))
        self._judge, self._called = judge, called

    def __missing__(self, name: str) -> Any:
        if name in COMMON_MODULES and name not in self._called:
            return importlib.import_module(name)
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
    """The last way to import a module that a test names: as the program."""

    def __init__(self, judge: Judge, test: ModuleType, names: frozenset[str]) -> None:
        self._judge, self._test, self._names = judge, test, names

    def find_spec(self, name: str, path: object, target: object = None) -> ModuleSpec | None:
        """Find a module that the test imports and that is not in the standard library."""
        package = name.partition(".")[0]
        if name not in self._names or package in LIBRARY or package in PACKAGES:
            return None
        return ModuleSpec(name, self, is_package=True)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the program as a module."""
        return ProgramModule(spec.name, self._judge, self._test)

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing: the program runs in its own process."""
