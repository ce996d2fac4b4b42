"""Plain data between the judge of a test and the host of a program: JSON over one socket.

Only values of Python's own types cross, rebuilt on the other side from what they consist of, so
that no code of the program reaches the judge: neither a class nor an operator of its own. This
file is executed in the sandbox, in front of the runner, and imports only the standard library.
"""

import collections
import json
import os
import struct
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from functools import cache
from importlib import import_module
from itertools import chain
from typing import Any, Protocol, Self

MAX_FRAME_BYTES = 16 << 20
MAX_DEPTH = 100
MAX_JSON_INT = 1 << 53
MAX_DIGITS = 1 << 20


@cache
def named_tuple(name: str, fields: tuple[str, ...]) -> type[tuple[Any, ...]]:
    """Return the named tuple with that name and these fields."""
    make: Callable[[str, tuple[str, ...]], type[tuple[Any, ...]]] = collections.namedtuple
    return make(name, fields)


_WRITERS: Mapping[type, Callable[[Any], Iterable[Any]]] = {
    list: lambda value: ("list", *value),
    tuple: lambda value: ("tuple", *value),
    set: lambda value: ("set", *value),
    frozenset: lambda value: ("frozenset", *value),
    dict: lambda value: ("dict", *chain.from_iterable(value.items())),
    bytes: lambda value: ("bytes", value.hex()),
    bytearray: lambda value: ("bytearray", value.hex()),
    complex: lambda value: ("complex", value.real, value.imag),
    range: lambda value: ("range", value.start, value.stop, value.step),
}
_READERS: Mapping[str, Callable[..., Any]] = {
    "int": lambda digits: int(digits, 16),
    "list": lambda *parts: list(parts),
    "tuple": lambda *parts: parts,
    "set": lambda *parts: set(parts),
    "frozenset": lambda *parts: frozenset(parts),
    "dict": lambda *parts: dict(zip(parts[::2], parts[1::2], strict=True)),
    "bytes": bytes.fromhex,
    "bytearray": bytearray.fromhex,
    "complex": complex,
    "range": range,
    "namedtuple": lambda name, fields, *parts: named_tuple(name, tuple(fields))(*parts),
}
# Values of the standard library: the parts that they are made of, and the function that makes them.
PLAIN_CLASSES: Mapping[str, tuple[Callable[[Any], Iterable[Any]], str | None]] = {
    "collections.Counter": (lambda value: (dict(value),), None),
    "collections.OrderedDict": (lambda value: (list(value.items()),), None),
    "collections.defaultdict": (lambda value: (None, dict(value)), None),
    "collections.deque": (lambda value: (list(value), value.maxlen), None),
    "datetime.date": (lambda value: (value.isoformat(),), "fromisoformat"),
    "datetime.datetime": (lambda value: (value.isoformat(),), "fromisoformat"),
    "datetime.time": (lambda value: (value.isoformat(),), "fromisoformat"),
    "datetime.timedelta": (lambda value: (value.days, value.seconds, value.microseconds), None),
    "decimal.Decimal": (lambda value: (str(value),), None),
    "fractions.Fraction": (lambda value: (value.numerator, value.denominator), None),
    "uuid.UUID": (lambda value: (str(value),), None),
}
_SHARED = """
abc bisect cmath collections collections.abc copy datetime decimal fractions functools heapq
itertools json math numbers operator random re statistics string time typing uuid
"""
_RAISING = "binascii builtins configparser csv dataclasses json.decoder queue struct zlib"
SHARED_MODULES = frozenset(_SHARED.split())
"""Modules whose classes and functions both sides take for their own: none of their values takes
part in a comparison by other rules than those of plain data."""
EXCEPTION_MODULES = SHARED_MODULES | frozenset(_RAISING.split())
_BASES = (int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset)
_SUBCLASSES = ("collections.Counter", "collections.OrderedDict", "collections.defaultdict")


class Lost(BaseException):
    """The other side has ended, or does not keep to the protocol."""


class References(Protocol):
    """A side's way to name what is no plain data."""

    def export(self, value: Any) -> list[Any]:
        """Return a name for a value: a tag and plain parts.

        Raises:
            TypeError: the value cannot cross.
        """

    def restore(self, tag: str, parts: Sequence[Any]) -> Any:
        """Return what the other side has named."""


class Caught:
    """A context that keeps what was raised in it, of whatever class, as its `error`."""

    error: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        self.error = error
        return True


def encode(value: Any, references: References, depth: int = 0) -> Any:
    """Return a value as JSON can hold it: a list is a tag and the parts of a value.

    Raises:
        TypeError: a part of it cannot cross.
        ValueError: it is nested too deep, or contains an integer of too many digits.
    """
    kind = type(value)
    if value is None or kind is bool or kind is str or kind is float:
        return value
    if kind is int:
        return value if -MAX_JSON_INT < value < MAX_JSON_INT else ["int", hexadecimal(value)]
    if depth == MAX_DEPTH:
        raise ValueError(
            f"a value that is nested deeper than {MAX_DEPTH} levels cannot be compared"
        )
    parts = parts_of(value, kind)
    if parts is None:
        return references.export(value)
    return [encode(part, references, depth + 1) if place else part for place, part in parts]


def hexadecimal(value: int) -> str:
    """Return the digits of an integer to the base 16.

    Raises:
        ValueError: there are too many.
    """
    if value.bit_length() > 4 * MAX_DIGITS:
        raise ValueError("an integer of more than a million digits cannot be compared")
    return hex(value)


def parts_of(value: Any, kind: type) -> Iterable[tuple[int, Any]] | None:
    """Return the tag and the parts of a value, numbered; or None if it is no plain data."""
    if kind in _WRITERS:
        return enumerate(_WRITERS[kind](value))
    name = f"{kind.__module__}.{kind.__qualname__}"
    if (
        name in PLAIN_CLASSES
        and getattr(sys.modules.get(kind.__module__), kind.__name__, None) is kind
    ):
        return enumerate((name, *PLAIN_CLASSES[name][0](value)))
    if isinstance(value, tuple) and hasattr(kind, "_fields"):
        return enumerate(("namedtuple", kind.__name__, list(kind._fields), *value))
    return None


def as_base(value: Any) -> Any:
    """Return an instance of a subclass of a plain type as an instance of that type, or itself."""
    kind = next((base for base in _BASES if isinstance(value, base)), None)
    for base in type(value).__mro__ if kind is dict else ():
        if f"{base.__module__}.{base.__qualname__}" in _SUBCLASSES:
            return base(None, value) if base.__name__ == "defaultdict" else base(value)
    return value if kind is None or type(value) is kind else kind(value)


def decode(data: Any, references: References) -> Any:
    """Return the value that `encode` has turned into this, of Python's own types alone."""
    if type(data) is not list:
        return data
    tag, *rest = data
    if tag in PLAIN_CLASSES:
        module, _, name = tag.partition(".")
        make = getattr(import_module(module), name)
        maker = PLAIN_CLASSES[tag][1]
        return (getattr(make, maker) if maker else make)(
            *(decode(part, references) for part in rest)
        )
    if tag in _READERS:
        return _READERS[tag](*(decode(part, references) for part in rest))
    return references.restore(tag, rest)


def update(old: Any, new: Any) -> Any:
    """Make a mutable value equal to another of its type, part by part; return what then holds."""
    if type(old) is not type(new):
        return new
    if isinstance(old, list):
        old[:] = [*map(update, old, new), *new[len(old) :]]
    elif isinstance(old, MutableMapping):
        kept = {key: update(old[key], value) if key in old else value for key, value in new.items()}
        old.clear()
        old.update(kept)
    elif isinstance(old, tuple):
        return tuple.__new__(type(old), map(update, old, new)) if len(old) == len(new) else new
    elif isinstance(old, set):
        old.clear()
        old.update(new)
    elif isinstance(old, bytearray):
        old[:] = new
    elif type(old).__name__ == "deque":
        old.clear()
        old.extend(new)
    else:
        return new
    return old


class Channel:
    """Frames of JSON over a socket: four bytes of length, then the text.

    Raises:
        Lost: the other side is gone, or what it sent is no frame.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def send(self, message: Any) -> None:
        """Send one message.

        Raises:
            ValueError: it is too large.
        """
        text = json.dumps(message, separators=(",", ":")).encode()
        if len(text) > MAX_FRAME_BYTES:
            raise ValueError(f"a value of more than {MAX_FRAME_BYTES >> 20} MiB cannot be compared")
        data = memoryview(struct.pack("!I", len(text)) + text)
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError as error:
            raise Lost(str(error)) from None

    def receive(self) -> list[Any]:
        """Wait for the next message."""
        (size,) = struct.unpack("!I", self._read(4))
        if size > MAX_FRAME_BYTES:
            raise Lost("the frame is too large")
        try:
            message = json.loads(self._read(size))
        except (ValueError, RecursionError) as error:
            raise Lost(str(error)) from None
        if type(message) is not list or not message:
            raise Lost("the message is no list")
        return message

    def _read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            try:
                part = os.read(self._descriptor, size - len(data))
            except OSError as error:
                raise Lost(str(error)) from None
            if not part:
                raise Lost("the other side has ended")
            data += part
        return bytes(data)


class Peer:
    """One side of a conversation: it asks the other side, and answers while it waits for a reply.

    `answer` gets the operation and its encoded operands and returns the encoded parts of a reply.
    """

    def __init__(self, channel: Channel, answer: Callable[[str, list[Any]], list[Any]]) -> None:
        self._channel, self._answer = channel, answer
        self._asked = 0
        self._lock = threading.RLock()

    def ask(self, operation: str, operands: list[Any]) -> list[Any]:
        """Ask for an operation on encoded operands and return the parts of the reply.

        Raises:
            Lost: there is no reply, or it belongs to no question.
        """
        with self._lock:
            self._asked += 1
            number = self._asked
            self._channel.send(["ask", number, operation, operands])
            while (message := self._channel.receive())[0] == "ask":
                self.reply(message)
            if message[:2] != ["reply", number]:
                raise Lost("the reply belongs to no question")
            return message[2:]

    def next_question(self) -> list[Any]:
        """Wait for the other side's next question.

        Raises:
            Lost: it sent something else, or is gone.
        """
        message = self._channel.receive()
        if message[0] != "ask":
            raise Lost("a reply without a question")
        return message

    def reply(self, message: list[Any]) -> None:
        """Answer one question."""
        _, number, operation, operands = message
        reply = self._answer(operation, operands)
        try:
            self._channel.send(["reply", number, *reply])
        except ValueError as error:
            self._channel.send(["reply", number, *self._answer("refuse", [str(error)])])


def reference_to(value: Any, is_known: Callable[[str], bool]) -> list[Any] | None:
    """Return a module, class or function by module and name, if a known module holds it."""
    module, name = getattr(value, "__module__", None), getattr(value, "_name", None)
    if isinstance(value, type(sys)):
        module, name = value.__name__, ""
    elif not isinstance(name, str):
        name = getattr(value, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or not is_known(module):
        return None
    return ["reference", module, name] if named(module, name) is value else None


def named(module: str, name: str) -> Any:
    """Return a module, or what it holds under that name; None if it holds nothing."""
    found = import_module(module)
    return getattr(found, name, None) if name else found
