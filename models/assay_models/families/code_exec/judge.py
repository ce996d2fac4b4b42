"""The judge: it runs a test's own code in a process that holds no object of the program.

Names that the test does not define are asked of the program: plain data arrives as a copy, and
anything else as a `Remote`, whose operations are questions to the program's process. Comparisons of
plain data happen here. This file is executed in the sandbox, in front of the runner, and imports
only the standard library.
"""

import ast
import builtins
import importlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.machinery import ModuleSpec
from itertools import islice
from types import CodeType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:  # they run in front of this file, in the same module
    from assay_models.families.code_exec.candidate import EXCEPTION_MODULES, SHARED_MODULES
    from assay_models.families.code_exec.exchange import exception_number
    from assay_models.families.code_exec.wire import (
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

PASSED, FAILED, ERRED, EXHAUSTED, QUIT, LOST, UNISOLATED = range(7)
MAX_ITERATED = 100_000
SINGLE_STEPS, MAX_STEP = 32, 256
# Modules that a test may use without importing them, as the program's own import would let it.
# They are the judge's, so that no program answers for `math.isclose`.
COMMON_MODULES = frozenset(
    [
        "asyncio",
        "bisect",
        "cmath",
        "collections",
        "contextlib",
        "copy",
        "datetime",
        "decimal",
        "fractions",
        "functools",
        "heapq",
        "inspect",
        "io",
        "itertools",
        "json",
        "math",
        "operator",
        "os",
        "random",
        "re",
        "statistics",
        "string",
        "sys",
        "time",
        "typing",
        "unittest",
    ]
)
OWN_FUNCTIONS = {"isclose": "math"}
UNIT = re.compile("check$|test")
LIBRARY = sys.stdlib_module_names


class Unisolated(BaseException):
    """The test needs more of the program than plain data and questions."""


class ProgramExit(SystemExit):
    """A SystemExit that the program has raised, not the test."""


class Judge:
    """A test's view of the program, without any of the program's objects."""

    def __init__(self, channel: "Channel | None", entry_points: Sequence[str]) -> None:
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
            return ["iterator", *(encode(part, self) for part in islice(value, MAX_ITERATED))]
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
        if value is None or (module == "builtins" and not isinstance(value, type)):
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


class Remote:
    """An object of the program: each operation on it is a question to the program's process."""

    __slots__ = ("__judge", "__kind", "__number")

    def __init__(self, judge: Judge, number: int, kind: str) -> None:
        for name, value in zip(Remote.__slots__, (judge, kind, number), strict=True):
            object.__setattr__(self, f"_Remote{name}", value)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name not in (
            "__name__",
            "__doc__",
            "__qualname__",
            "__dict__",
        ):
            raise AttributeError(name)
        return self.__judge.ask("getattr", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self.__judge.ask("setattr", self, name, value)

    def __delattr__(self, name: str) -> None:
        self.__judge.ask("delattr", self, name)

    def __call__(self, *arguments: Any, **named_arguments: Any) -> Any:
        if self.__kind == "coroutine":
            return self.__await_call(list(arguments), named_arguments)
        return self.__judge.ask("call", self, list(arguments), named_arguments)

    async def __await_call(self, arguments: list[Any], named_arguments: dict[str, Any]) -> Any:
        return self.__judge.ask("call", self, arguments, named_arguments)

    def __iter__(self) -> Iterator[Any]:
        iterator = self.__judge.ask("iter", self)
        if not isinstance(iterator, Remote):
            yield from iterator
            return
        for count in range(MAX_ITERATED):
            step = 1 if count < SINGLE_STEPS else min(count, MAX_STEP)
            values, has_ended = self.__judge.ask("take", iterator, step)
            yield from values
            if has_ended:
                return

    def __eq__(self, other: object) -> bool:
        return other is self or bool(self.__judge.compare("eq", False, self, other))

    def __ne__(self, other: object) -> bool:
        return other is not self and bool(self.__judge.compare("ne", True, self, other))

    def __hash__(self) -> int:
        return hash(self.__number)

    def __enter__(self) -> Any:
        return self.__judge.ask("enter", self)

    def __exit__(self, *error: object) -> None:
        self.__judge.ask(
            "call", self.__judge.ask("getattr", self, "__exit__"), [None, None, None], {}
        )

    def __instancecheck__(self, value: object) -> bool:
        return bool(self.__judge.ask("isinstance", value, self))

    def __mro_entries__(self, bases: object) -> NoReturn:
        self.__judge.refuse()

    def _assay_ask(self, operation: str, *operands: Any) -> Any:
        return self.__judge.ask(operation, self, *operands)

    def _assay_compare(self, operation: str, operands: Sequence[Any]) -> Any:
        if all(isinstance(operand, Remote) for operand in operands):
            return self.__judge.ask(operation, *operands)
        return self.__judge.compare(operation, None, *operands)

    def _assay_parts(self) -> list[Any]:
        return ["handle", self.__number, self.__kind]


def remote_parts(remote: Remote) -> list[Any]:
    """Return the name of a remote object for the program's side."""
    return remote._assay_parts()


UNARY = [
    "bool",
    "len",
    "str",
    "repr",
    "int",
    "float",
    "complex",
    "abs",
    "round",
    "format",
    "reversed",
    "next",
    "neg",
    "pos",
    "invert",
    "index",
    "getitem",
    "setitem",
    "delitem",
    "bytes",
]
BINARY = [
    "add",
    "sub",
    "mul",
    "matmul",
    "truediv",
    "floordiv",
    "mod",
    "pow",
    "and",
    "or",
    "xor",
    "lshift",
    "rshift",
    "divmod",
    "lt",
    "le",
    "gt",
    "ge",
]


def _forward() -> None:
    """Give `Remote` the operators that are questions as they stand."""

    def unary(operation: str) -> Callable[..., Any]:
        return lambda self, *operands: self._assay_ask(operation, *operands)

    def binary(operation: str, is_reflected: bool = False) -> Callable[..., Any]:
        if is_reflected:
            return lambda self, other: self._assay_compare(operation, (other, self))
        return lambda self, other: self._assay_compare(operation, (self, other))

    for name in UNARY:
        setattr(Remote, f"__{name}__", unary(name))
    for name in BINARY:
        operation = f"{name}_" if name in ("and", "or") else name
        setattr(Remote, f"__{name}__", binary(operation))
        if name not in ("lt", "le", "gt", "ge"):
            setattr(Remote, f"__r{name}__", binary(operation, is_reflected=True))
    Remote.__contains__ = binary("contains")  # type: ignore[attr-defined]


_forward()


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
        if name not in self._names or name.partition(".")[0] in LIBRARY:
            return None
        return ModuleSpec(name, self, is_package=True)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the program as a module."""
        return ProgramModule(spec.name, self._judge, self._test)

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing: the program runs in its own process."""


def called_names(tree: ast.AST) -> frozenset[str]:
    """Return the names that are called as functions anywhere in a test."""
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return frozenset(name.id for name in calls if isinstance(name, ast.Name))


def imported_names(tree: ast.AST) -> frozenset[str]:
    """Return the names of the modules that a test imports, with those of their packages."""
    names = [
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
        )
    ]
    return frozenset(
        ".".join(name.split(".")[:depth])
        for name in names
        for depth in range(1, 1 + len(name.split(".")))
    )


def asserts_nothing(tree: ast.AST) -> bool:
    """Return whether a test shows the result of a comparison and ends in no case with an error."""
    nodes = [*ast.walk(tree)]
    calls = [node.func for node in nodes if isinstance(node, ast.Call)]
    names = [getattr(name, "attr", getattr(name, "id", "")) for name in calls]
    if any(isinstance(node, ast.Assert | ast.Raise) for node in nodes):
        return False
    if any(name.startswith(("assert", "fail", "exit", "_exit", "check")) for name in names):
        return False
    shown = [node.value for node in nodes if isinstance(node, ast.Expr)]
    return "print" in names or any(isinstance(value, ast.Compare | ast.BoolOp) for value in shown)


def used_names(tree: ast.AST) -> frozenset[str]:
    """Return the names whose value is used anywhere in a test."""
    names = (node for node in ast.walk(tree) if isinstance(node, ast.Name))
    return frozenset(name.id for name in names if isinstance(name.ctx, ast.Load))


def run_test(text: str, judge: Judge) -> None:
    """Run a test: its text, and then the functions and classes in it that nothing has run."""
    tree = ast.parse(text)
    if judge.is_empty and asserts_nothing(tree):
        return
    module = ModuleType("__main__")
    module.__dict__["__builtins__"] = Names(judge, called_names(tree))
    sys.modules["__main__"] = module
    sys.meta_path.append(Finder(judge, module, imported_names(tree)))  # type: ignore[arg-type]
    if "unittest" in text:
        import unittest

        unittest.main = lambda *arguments, **named_arguments: None  # type: ignore[assignment, misc]
    if "random.seed" in text:
        share_seed(judge)
    for name in judge.shadowing_entries():
        module.__dict__[name] = judge.name(name)
    code: CodeType = compile(tree, "<test>", "exec", dont_inherit=True, optimize=0)
    try:
        exec(code, module.__dict__)  # noqa: S102 this is what the sandbox is for
    except SystemExit as end:
        if isinstance(end, ProgramExit) or end.code:
            raise
    used = used_names(tree)
    for value in [value for value in module.__dict__.values() if is_own(value)]:
        run_unit(value, used, judge)


def is_own(value: object) -> bool:
    """Return whether a test has defined this function or class itself."""
    return isinstance(value, FunctionType | type) and value.__module__ == "__main__"


def run_unit(value: Any, used: frozenset[str], judge: Judge) -> None:
    """Run a `check` function, a test function, or a class of test cases."""
    if isinstance(value, type):
        cases = sys.modules.get("unittest.case")
        if cases is not None and issubclass(value, cases.TestCase):
            run_cases(value)
    elif value.__name__ not in used and UNIT.match(value.__name__):
        required = value.__code__.co_argcount - len(value.__defaults__ or ())
        value(*[judge.entry() for _ in range(required)])


def run_cases(cases: type[Any]) -> None:
    """Run the tests of a class, and raise what the first failed one has raised."""
    import unittest

    errors: list[BaseException] = []

    class Result(unittest.TestResult):
        def addError(self, test: Any, err: Any) -> None:
            errors.append(err[1])
            super().addError(test, err)

        def addFailure(self, test: Any, err: Any) -> None:
            errors.append(err[1])
            super().addFailure(test, err)

        def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
            errors.extend([] if err is None else [err[1]])
            super().addSubTest(test, subtest, err)

    result = Result()
    unittest.TestLoader().loadTestsFromTestCase(cases).run(result)
    if errors:
        raise errors[0]
    assert result.wasSuccessful()


def share_seed(judge: Judge) -> None:
    """Seed the program's generator of random numbers along with the test's own."""
    import random

    seed = random.seed

    def seed_both(*arguments: Any) -> None:
        seed(*arguments)
        judge.ask("seed", *arguments)

    random.seed = seed_both


def verdict(text: str, channel: "Channel | None", entry_points: Sequence[str]) -> bytes:
    """Run a test and return its verdict and the number of the exception that ended it.

    Without a channel, the program is the empty one.
    """
    judge = Judge(channel, entry_points)
    with Caught() as caught:
        if channel is not None:
            judge.ask("load")
        run_test(text, judge)
    error, number = caught.error, 0
    if judge.is_lost:
        code = LOST
    elif judge.is_refused or (error is None and judge.is_doubtful):
        code = UNISOLATED
    elif error is None:
        code = PASSED
    else:
        kinds: Mapping[type[BaseException], int]
        kinds = {AssertionError: FAILED, MemoryError: EXHAUSTED, SystemExit: QUIT}
        code = next((kinds[kind] for kind in kinds if isinstance(error, kind)), ERRED)
        number = 0 if code == QUIT else exception_number(error)
    return bytes([code, number])
