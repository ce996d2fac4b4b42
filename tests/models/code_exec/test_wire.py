"""The plain data between judge and program: what crosses, and what is refused."""

import os
import socket
import struct
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_models.families.code_exec.wire import (
    MAX_DEPTH,
    MAX_FRAME_BYTES,
    Channel,
    Lost,
    Peer,
    as_base,
    decode,
    encode,
    update,
)


class Nothing:
    """References of a side that has none."""

    def export(self, value: Any) -> list[Any]:
        raise TypeError(type(value).__name__)

    def restore(self, tag: str, parts: Sequence[Any]) -> Any:
        raise Lost(tag)


NOTHING = Nothing()
ATOMS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
) | st.binary(max_size=5)
VALUES = st.recursive(
    ATOMS,
    lambda part: (
        st.lists(part, max_size=3)
        | st.tuples(part, part)
        | st.dictionaries(st.text(max_size=3) | st.integers(), part, max_size=3)
        | st.sets(st.integers(), max_size=1)
    ),
    max_leaves=10,
)
Point = namedtuple("Point", "x y")
LIBRARY = (
    Counter("aab"),
    OrderedDict(b=1, a=2),
    deque([1, 2], 5),
    date(2020, 2, 29),
    datetime(2020, 2, 29, 1, 2, 3, 4, UTC),
    time(1, 2),
    timedelta(days=-1, microseconds=3),
    Decimal("1.50"),
    Fraction(-1, 3),
    range(1, 9, 3),
    frozenset([1]),
    bytearray(b"x"),
    1j,
    10**5000,
    Point(1, [2]),
)


@given(value=VALUES)
def test_plain_data_arrives_equal_and_of_the_same_types(value: Any) -> None:
    got = decode(encode(value, NOTHING), NOTHING)
    assert repr(got) == repr(value)
    assert type(got) is type(value)


@pytest.mark.parametrize("value", LIBRARY, ids=lambda value: type(value).__name__)
def test_values_of_the_library_arrive_equal(value: Any) -> None:
    got = decode(encode(value, NOTHING), NOTHING)
    assert got == value
    assert isinstance(got, type(value) if type(value) is not Point else tuple)


class Level(IntEnum):
    LOW = 1


class Sly(str):
    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = str.__hash__


class Grid(defaultdict[str, int]):
    pass


@pytest.mark.parametrize(
    ("value", "base"),
    [(Level.LOW, 1), (Sly("a"), "a"), (Grid(int, a=1), defaultdict(None, a=1))],
)
def test_an_instance_of_a_subclass_becomes_one_of_its_base(value: object, base: object) -> None:
    assert type(as_base(value)) is type(base)
    assert as_base(value) == base


def test_what_is_too_deep_or_too_long_is_refused() -> None:
    value: list[Any] = []
    for _ in range(MAX_DEPTH):
        value = [value]
    with pytest.raises(ValueError, match="nested deeper"):
        encode(value, NOTHING)
    with pytest.raises(ValueError, match="million digits"):
        encode(1 << (1 << 24), NOTHING)
    with pytest.raises(TypeError):
        encode([object()], NOTHING)


@pytest.mark.parametrize(
    "data",
    [[], ["eval", "1"], ["set", ["list"]], ["dict", 1], ["int", 7], ["namedtuple", "a b", ["list"]],
     ["collections.Counter", 1], ["decimal.Decimal", "x"], ["os.system", "x"], [None], [["list"]]],
)  # fmt: skip
def test_forged_data_is_an_error_and_runs_nothing(data: Any) -> None:
    with pytest.raises((Lost, ValueError, TypeError, ArithmeticError)):
        decode(data, NOTHING)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ([1, [2], 3], [1, [4, 5]]),
        ([[1]], [[2], [3]]),
        ({"a": [1], "b": 2}, {"a": [1, 2], "c": 3}),
        ({1, 2}, {2, 3}),
        (deque([1]), deque([2, 3])),
        (bytearray(b"ab"), bytearray(b"c")),
    ],
)
def test_a_value_is_changed_in_place(old: Any, new: Any) -> None:
    inner = old[0] if isinstance(old, list) and isinstance(old[0], list) else None
    assert update(old, new) is old
    assert old == new
    assert inner is None or inner is old[0]


@pytest.fixture
def ends() -> Iterator[tuple[Channel, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Channel(ours.fileno()), theirs


@pytest.mark.parametrize(
    "sent",
    [
        struct.pack("!I", MAX_FRAME_BYTES + 1),
        struct.pack("!I", 2) + b"{}",
        struct.pack("!I", 2) + b"[]",
        struct.pack("!I", 3) + b"[1,",
        struct.pack("!I", 100_000) + b"[" * 100_000,
        struct.pack("!I", 8) + b"[1]",
        b"\0",
        b"",
    ],
)
def test_what_is_no_frame_ends_the_conversation(
    ends: tuple[Channel, socket.socket], sent: bytes
) -> None:
    channel, other = ends
    other.sendall(sent)
    other.shutdown(socket.SHUT_WR)
    with pytest.raises(Lost):
        channel.receive()


@pytest.mark.parametrize("reply", ['["reply",2,"value",9]', '["reply"]', '["value",1,9]', "[1]"])
def test_a_reply_to_no_question_ends_the_conversation(
    ends: tuple[Channel, socket.socket], reply: str
) -> None:
    channel, other = ends
    other.sendall(struct.pack("!I", len(reply)) + reply.encode())
    with pytest.raises(Lost):
        Peer(channel, lambda operation, operands: []).ask("name", ["f"])


def test_a_side_that_is_gone_ends_the_conversation() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with pytest.raises(Lost):
        Channel(writing).send([1])
    os.close(writing)
