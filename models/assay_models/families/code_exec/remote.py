"""The judge's view of an object of the program.

This file is executed in the sandbox, in front of the runner, and imports only the standard library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn, Protocol

MAX_ITERATED = 100_000
SINGLE_STEPS, MAX_STEP = 32, 256
UNARY = """
bool len str repr int float complex abs round format reversed next neg pos invert index getitem
setitem delitem bytes
"""
COMPARISONS = "lt le gt ge"
BINARY = "add sub mul matmul truediv floordiv mod pow and or xor lshift rshift divmod"


class Asker(Protocol):
    """The judge, as far as a remote object needs it."""

    def ask(self, operation: str, *operands: Any) -> Any:
        """Ask the program for an operation."""

    def compare(self, operation: str, default: bool | None, *operands: Any) -> Any:
        """Ask the program for an operation that shows it an expected value."""

    def refuse(self) -> NoReturn:
        """Raise that the test cannot be run against a program in another process."""


class Remote:
    """An object of the program: each operation on it is a question to the program's process."""

    __slots__ = ("__judge", "__kind", "__number")

    def __init__(self, judge: Asker, number: int, kind: str) -> None:
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

    def __call__(self, *arguments: Any, **named_arguments: Any) -> Any:  # noqa: D102 as any object
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

    def __mro_entries__(self, bases: object) -> tuple[type, ...]:
        self.__judge.refuse()
        return ()

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


def _forward() -> None:
    """Give `Remote` the operators that are questions as they stand."""

    def unary(operation: str) -> Callable[..., Any]:
        return lambda self, *operands: self._assay_ask(operation, *operands)

    def binary(operation: str, is_reflected: bool = False) -> Callable[..., Any]:
        if is_reflected:
            return lambda self, other: self._assay_compare(operation, (other, self))
        return lambda self, other: self._assay_compare(operation, (self, other))

    for name in UNARY.split():
        setattr(Remote, f"__{name}__", unary(name))
    for name in [*COMPARISONS.split(), "contains"]:
        setattr(Remote, f"__{name}__", binary(name))
    for name in BINARY.split():
        operation = f"{name}_" if name in ("and", "or") else name
        setattr(Remote, f"__{name}__", binary(operation))
        setattr(Remote, f"__r{name}__", binary(operation, is_reflected=True))


_forward()
