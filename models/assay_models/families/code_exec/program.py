"""The program's side of a test: names, handles and plain data for the judge.

This file is executed in the sandbox, in front of the runner, and imports only the standard library.
"""

from __future__ import annotations

import io
import operator
import os
import sys
from collections.abc import Callable, Sequence
from types import CodeType, CoroutineType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # they run in front of this file, in the same module
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
        parts_of,
        reference_to,
    )

MAX_OUTPUT_BYTES = 1 << 20
MAX_TEXT = 10_000
IS_COROUTINE = 0x80  # CO_COROUTINE
OPERATORS = """
eq ne lt le gt ge add sub mul matmul truediv floordiv mod pow and_ or_ xor lshift rshift neg pos
invert index getitem setitem delitem contains
"""
FUNCTIONS = """
bool len str repr int float complex abs round format reversed iter next divmod isinstance getattr
setattr delattr bytes
"""
OWN_OPERATIONS = "load name names entry call take enter seed share refuse"


def new_module(name: str) -> ModuleType:
    """Return the empty module of a program, which it finds under both of its names."""
    module = ModuleType(name)
    sys.modules["candidate"] = sys.modules["__main__"] = module
    return module


def compile_program(text: str) -> CodeType:
    """Compile a program with assertions always on."""
    return compile(text, "candidate.py", "exec", dont_inherit=True, optimize=0)


class Output(io.BytesIO):
    """The standard output of a program between two replies, bounded."""

    def write(self, data: Any) -> int:
        """Take bytes, up to the bound; drop the rest."""
        if len(self.getbuffer()) < MAX_OUTPUT_BYTES:
            super().write(data)
        return len(data)

    def take(self) -> str:
        """Return the text that was written, and forget it."""
        text = self.getvalue().decode(errors="replace")
        self.seek(0)
        self.truncate()
        return text


class Program:
    """A program as the judge may use it: by names, handles and plain data."""

    def __init__(self, text: str, channel: Channel) -> None:
        self.peer = Peer(channel, self.answer)
        self._text = text
        self._module = new_module("candidate")
        self._objects: list[Any] = []
        self._numbers: dict[int, int] = {}
        self._raised: dict[int, BaseException] = {}
        self._output = Output()
        # Kept here too: a stream that the program replaces would close what it writes to.
        self._stream = io.TextIOWrapper(self._output, "utf-8", "replace", write_through=True)
        sys.stdout = self._stream
        self._operations: dict[str, Callable[..., Any]] = {
            **{name: getattr(operator, name) for name in OPERATORS.split()},
            **{name: named("builtins", name) for name in FUNCTIONS.split()},
            **{name: getattr(self, f"_{name}") for name in OWN_OPERATIONS.split()},
        }

    def answer(self, operation: str, operands: list[Any]) -> list[Any]:
        """Return the reply to a question: its kind and parts, what was printed, what changed."""
        values: list[Any] = []
        result: list[Any] = []
        changes: list[Any] = [None, None]
        with Caught() as caught:
            values += [decode(operand, self) for operand in operands]
            value = self._operations[operation](*values)
            result += ["value", self._encode(operation, values, value)]
        if isinstance(caught.error, Lost):
            raise caught.error
        if caught.error is not None:
            result = ["raised", self._describe(caught.error)]
        with Caught():
            if operation == "call":
                changes = [
                    self._change(*pair) for pair in zip(values[1:], operands[1:], strict=True)
                ]
        return [*result, self._output.take(), changes]

    def export(self, value: Any) -> list[Any]:
        """Name a value for the judge: as an exception's class, by reference, or as a handle."""
        plain = as_base(value)
        if type(plain) is not type(value):
            data: list[Any] = encode(plain, self)
            return data
        if isinstance(value, type) and issubclass(value, BaseException):
            return ["exception", *self._lineage(value)]
        known = SHARED_MODULES | {"builtins"} if isinstance(value, type) else SHARED_MODULES
        return reference_to(value, known.__contains__) or self._handle(value)

    def restore(self, tag: str, parts: Sequence[Any]) -> Any:
        """Return what the judge names."""
        if tag == "handle":
            return self._objects[parts[0]]
        if tag == "reference":
            return named(*parts)
        if tag == "iterator":
            return iter([decode(part, self) for part in parts])
        return self._callback(parts[0])

    def _encode(self, operation: str, values: list[Any], value: Any) -> Any:
        if operation == "call":
            for place, argument in enumerate(values[1]):
                if argument is value and isinstance(value, list | dict | set | bytearray):
                    return ["argument", place]
            is_made = isinstance(values[0], type) and type(value) is values[0]
            if is_made and parts_of(value, type(value)) is None and as_base(value) is not value:
                return self._handle(value)  # its methods are what the test wants
        return encode(value, self)

    def _change(self, value: Any, operand: Any) -> Any:
        """Return the value of an operand if it is another now than the judge sent."""
        data = encode(value, self)
        return None if data == operand else data

    def _handle(self, value: Any) -> list[Any]:
        number = self._numbers.setdefault(id(value), len(self._objects))
        if number == len(self._objects):
            self._objects.append(value)
        code = getattr(getattr(value, "__func__", value), "__code__", None)
        is_coroutine = isinstance(code, CodeType) and bool(code.co_flags & IS_COROUTINE)
        return ["handle", number, "coroutine" if is_coroutine else "object"]

    def _lineage(self, kind: type[BaseException]) -> list[Any]:
        """Return the nearest exception that the judge has, and the program's own below it."""
        own: list[list[Any]] = []
        for base in kind.__mro__:
            if (
                base.__module__ in EXCEPTION_MODULES
                and named(base.__module__, base.__name__) is base
            ):
                return [base.__module__, base.__name__, own]
            own.append([self._handle(base)[1], base.__name__])
        return ["builtins", "Exception", own]

    def _describe(self, error: BaseException) -> list[Any]:
        """Return an exception as its class, arguments, attributes and text."""
        parts: list[Any] = []
        text = [""]
        with Caught():
            text = [str(error)[:MAX_TEXT]]
        with Caught():
            parts = [encode(error.args, self), encode(dict(vars(error)), self)]
        if len(parts) != 2:
            parts = [encode(tuple(text), self), encode({}, self)]
        return [self._lineage(type(error)), *parts, *text]

    def _callback(self, number: int) -> Callable[..., Any]:
        """Return a function that has the judge call one of the test's own."""

        def call(*arguments: Any, **named_arguments: Any) -> Any:
            operands = [number, encode(list(arguments), self), encode(named_arguments, self)]
            kind, data, *_ = self.peer.ask("call", operands)
            if kind == "raised":
                (name, text) = data
                raise getattr(sys.modules["builtins"], name)(text)
            return decode(data, self)

        return call

    def _load(self) -> None:
        exec(compile_program(self._text), self._module.__dict__)  # noqa: S102 what the sandbox is for

    def _name(self, name: str) -> Any:
        try:
            return self._module.__dict__[name]
        except KeyError:
            raise LookupError(name) from None

    def _names(self) -> list[str]:
        return [name for name in self._module.__dict__ if not name.startswith("_")]

    def _entry(self, names: list[str]) -> Any:
        """Return the first of the names that is defined, else the program's last function."""
        held = self._module.__dict__
        own = [value for value in held.values() if isinstance(value, FunctionType)]
        own = [value for value in own if value.__module__ == "candidate"]
        for name in names:
            if name in held:
                return held[name]
        if not own:
            raise NameError("the program defines no function")
        return own[-1]

    def _call(self, function: Any, arguments: list[Any], named_arguments: dict[str, Any]) -> Any:
        result = function(*arguments, **named_arguments)
        if type(result) is CoroutineType:
            import asyncio

            return asyncio.run(result)
        return result

    def _take(self, iterator: Any, count: int) -> tuple[list[Any], bool]:
        """Return up to that many of the next values, and whether they end there."""
        if (error := self._raised.pop(id(iterator), None)) is not None:
            raise error
        taken: list[Any] = []
        with Caught() as caught:
            while len(taken) < count:
                taken.append(next(iterator))
        if caught.error is None or isinstance(caught.error, StopIteration):
            return taken, caught.error is not None
        if not taken:
            raise caught.error
        self._raised[id(iterator)] = caught.error
        return taken, False

    def _enter(self, manager: Any) -> Any:
        return manager.__enter__()

    def _seed(self, *arguments: Any) -> None:
        import random

        random.seed(*arguments)

    def _share(self, changed: dict[str, str | None], folder: str, depth: int, digits: int) -> None:
        """Take over what the test has changed of its own process."""
        for name, value in changed.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        os.chdir(folder)
        sys.setrecursionlimit(depth)
        sys.set_int_max_str_digits(digits)

    def _refuse(self, reason: str) -> None:
        raise ValueError(reason)
