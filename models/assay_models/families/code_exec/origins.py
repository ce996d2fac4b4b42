"""Origins of a test's objects, and what it must not believe of them.

An object that a function of the program returns could agree to all that a test says about it, and
two functions of the program could agree on anything. This file is executed in the sandbox, in front
of the runner, and imports only the standard library.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # it runs in front of this file, in the same module
    from assay_models.families.code_exec.remote import Remote, remote_parts

# Methods of plain data, and of what is like it, that get what a test expects; no mere keys.
_PLAIN = (str, bytes, bytearray, list, tuple, dict, set, frozenset, int, float)
_KEYED = ("get", "pop", "setdefault")
_COMPARING = "all allclose any close eq equal equals identical is_close isclose same"
METHODS = frozenset(
    name for kind in _PLAIN for name in dir(kind) if not name.startswith("_")
).difference(_KEYED) | frozenset(_COMPARING.split())
NO_NUMBER = -1


class Origins:
    """The origins of the objects of a test, by number.

    `classes`: named by the test as classes. `entries`: the functions that it tests. `returned`:
    what functions have returned.
    """

    def __init__(self) -> None:
        self.classes: set[int] = set()
        self.entries: set[int] = set()
        self.returned: set[int] = set()
        self._methods: set[int] = set()
        self._results: list[Any] = []

    def add(self, name: str, value: Any, *, is_entry: bool) -> None:
        """Remember what a test has named. By convention, classes have names of their own."""
        if name.lstrip("_")[:1].isupper():
            self.classes.add(number_of(value))
        elif is_entry:
            self.entries.add(number_of(value))

    def is_construction(self, operation: str, operands: Sequence[Any]) -> bool:
        """Return whether a test makes an object of a class of the program."""
        return operation == "call" and number_of(operands[0]) in self.classes

    def is_doubtful(self, operation: str, operands: Sequence[Any], value: Any) -> bool:
        """Remember what a question has returned; return whether it was the program's own word.

        That is a method of plain data on an object that is none, and what another
        function makes of the result of the one that is tested.
        """
        if not operands:
            return False
        subject = number_of(operands[0])
        if operation == "getattr" and operands[1] in METHODS and subject in self.returned:
            self._methods.add(number_of(value))
            return callable(value) and not isinstance(value, Remote)
        if operation != "call":
            return False
        _, arguments, named_arguments = operands
        given = [*arguments, *named_arguments.values()]
        if subject in self.entries:
            self._results += [value] if is_recognizable(value) else []
            return False
        has_agreed = subject in self._methods and value is not None and (given or value is True)
        return bool(has_agreed) or (subject not in self.classes and self._is_result(given))

    def _is_result(self, given: Sequence[Any]) -> bool:
        """Return whether one of the arguments is or holds a result."""
        parts = [part for value in given if type(value) in (list, tuple) for part in value]
        results = {id(result) for result in self._results}
        return any(id(value) in results for value in (*given, *parts))


def number_of(value: object) -> int:
    """Return the number of an object of the program, or `NO_NUMBER` for anything else."""
    return int(remote_parts(value)[1]) if isinstance(value, Remote) else NO_NUMBER


def is_recognizable(value: object) -> bool:
    """Return whether a value has an identity of its own, unlike a small integer."""
    if isinstance(value, int):
        return not -6 < value < 257
    return value is not None and (not isinstance(value, str | bytes | tuple) or len(value) > 1)
