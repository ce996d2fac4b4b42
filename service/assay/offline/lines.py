"""Scoring a file of items: one result a line, in the order of the input, resumable at any line."""

import asyncio
import hashlib
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, BinaryIO, Protocol

import orjson

from assay.types import ItemFailure, ItemResult

RESTART_HINT = "start anew with --restart"
RECORD_START = b'{"line":'


class Halted(Exception):
    """Scoring cannot go on. What was written stays, and the same command goes on from there; but
    for `misused`, where only another command can.
    """

    def __init__(self, detail: str, hint: str | None = None, *, misused: bool = False) -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = hint
        self.misused = misused


class CannotResume(Exception):
    """The output is not the beginning of what this command would write; the text says why."""

    hint = RESTART_HINT


class ItemsRefused(Exception):
    """Items of a batch lack fields or have unknown ones; none of the batch was scored.

    `problems` maps the place of each such item in the batch to what is wrong with it.
    """

    def __init__(self, problems: Mapping[int, str]) -> None:
        super().__init__(f"{len(problems)} items refused")
        self.problems = problems


class BatchTooLarge(Exception):
    """A batch has more bytes or tokens than one request may have."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What made the numbers: `name@version` and the fingerprint."""

    model: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """One item's result, and what made it; None where no model has seen the item."""

    result: ItemResult
    identity: Identity | None


class Scorer(Protocol):
    """Scores a batch of items, in order.

    Raises:
        ItemsRefused: fields are missing, unknown or of a wrong type.
        BatchTooLarge: smaller batches may pass.
        Halted: nothing more can be scored.
    """

    async def __call__(self, items: Sequence[Mapping[str, Any]]) -> list[Outcome]:
        """One outcome for each item."""
        ...


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the input that is not blank, its number counted from 1 over all lines."""

    number: int
    text: bytes

    @property
    def digest(self) -> str:
        """Tells whether the line has changed since it was scored."""
        return hashlib.blake2b(self.text, digest_size=8).hexdigest()


@dataclass(slots=True)
class Tally:
    """How many lines have a result: scored ones, and failures by code."""

    scored: int = 0
    failures: Counter[str] = field(default_factory=Counter)

    @property
    def failed(self) -> int:
        """Lines without a score."""
        return self.failures.total()

    @property
    def done(self) -> int:
        """Lines with a result of either kind."""
        return self.scored + self.failed

    def add(self, failure: ItemFailure | None) -> None:
        """Count one line, failed or scored."""
        if failure is None:
            self.scored += 1
        else:
            self.failures[failure.code] += 1


@dataclass(slots=True)
class Recorded:
    """What an earlier run left: its whole lines end at byte `end`, and `seen` is the first of
    them that a model, `identity`, has seen.
    """

    end: int = 0
    tally: Tally = field(default_factory=Tally)
    identity: Identity | None = None
    seen: Line | None = None


@dataclass(frozen=True, slots=True)
class Pace:
    """Items in a batch, and batches under way at once."""

    batch_size: int
    in_flight: int


def read_lines(file: BinaryIO) -> Iterator[Line]:
    """The lines of a file that are not blank."""
    for number, text in enumerate(file, start=1):
        stripped = text.removeprefix(b"\xef\xbb\xbf").strip() if number == 1 else text.strip()
        if stripped:
            yield Line(number, stripped)


def count_lines(file: BinaryIO) -> tuple[int, int]:
    """How many lines have a text, and how many are blank."""
    total = filled = 0
    for total, text in enumerate(file, start=1):  # noqa: B007 the last number is the count
        filled += bool(text.strip())
    return filled, total - filled


def read_recorded(output: BinaryIO, lines: Iterator[Line]) -> Recorded:
    """Hold what an earlier run wrote against the input, and take its lines from `lines`.

    A last line that was cut short does not count.

    Raises:
        CannotResume: a line is no result, or of another input line, or of another model than the
            lines before it.
    """
    recorded = Recorded()
    for place, text in enumerate(output, start=1):
        if not text.endswith(b"\n"):
            _check_torn(text)
            break
        record = _parsed_record(text, place)
        line = next(lines, None)
        if line is None:
            raise CannotResume("the output has more lines than the input")
        if (record["line"], record["digest"]) != (line.number, line.digest):
            raise CannotResume(
                f"line {line.number} of the input is not the one that line {place} of the output "
                "was computed from"
            )
        _note(recorded, record, line, place)
        recorded.end += len(text)
    return recorded


async def check_identity(recorded: Recorded, scorer: Scorer) -> None:
    """Score one recorded line again, to see that the same model still answers.

    Raises:
        CannotResume: another model, or the same with other options, answers now.
    """
    if recorded.seen is None:
        return
    (outcome,) = await score_lines([recorded.seen], scorer)
    if outcome.identity is not None and outcome.identity != recorded.identity:
        raise CannotResume(_changed(recorded.identity, outcome.identity))


async def score_file(
    lines: Iterator[Line],
    scorer: Scorer,
    output: BinaryIO,
    recorded: Recorded,
    pace: Pace,
    report: Callable[[Tally], None],
) -> None:
    """Score what `lines` still holds and write one result a line, in order.

    A batch is written as a whole and flushed before the next one. `recorded.tally` is kept up to
    date and handed to `report` after each.

    Raises:
        Halted: scoring cannot go on, or the model changed on the way.
    """
    batches = iter(lambda: list(islice(lines, pace.batch_size)), [])
    under_way: deque[tuple[list[Line], asyncio.Task[list[Outcome]]]] = deque()
    try:
        while True:
            for batch in islice(batches, pace.in_flight - len(under_way)):
                under_way.append((batch, asyncio.create_task(score_lines(batch, scorer))))
            if not under_way:
                return
            batch, task = under_way[0]
            outcomes = await task
            under_way.popleft()
            _check_unchanged(recorded, outcomes)
            _write(output, b"".join(map(record_of, batch, outcomes)))
            for outcome in outcomes:
                recorded.tally.add(outcome.result.error)
            report(recorded.tally)
    finally:
        for _, task in under_way:
            task.cancel()
        await asyncio.gather(*(task for _, task in under_way), return_exceptions=True)


async def score_lines(lines: Sequence[Line], scorer: Scorer) -> list[Outcome]:
    """One outcome for each line; what is no item fails with `invalid_line`."""
    parsed = [_parsed_item(line) for line in lines]
    items = [item for item in parsed if not isinstance(item, ItemFailure)]
    outcomes = iter(await _score_accepted(items, scorer))
    return [
        _failed(item, None) if isinstance(item, ItemFailure) else next(outcomes) for item in parsed
    ]


def record_of(line: Line, outcome: Outcome) -> bytes:
    """The line of the output."""
    result, identity = outcome.result, outcome.identity
    record = {
        "line": line.number,
        "id": result.id,
        "group": result.group,
        "status": result.status,
        "score": result.score,
        "raw": result.raw,
        "channels": result.channels,
        "flags": result.flags,
        "tokens": result.tokens,
        "source": result.source,
        "details": result.details,
        "error": result.error,
        "model": identity and identity.model,
        "fingerprint": identity and identity.fingerprint,
        "digest": line.digest,
    }
    return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)


def refusals(problems: Sequence[Mapping[str, Any]]) -> dict[int, str]:
    """The first problem of each item, by the item's place, from fields named `items.N.field`."""
    first: dict[int, str] = {}
    for problem in problems:
        root, _, rest = str(problem.get("field", "")).partition(".")
        place, _, name = rest.partition(".")
        if root == "items" and place.isdecimal():
            first.setdefault(int(place), f"{name or 'item'}: {problem.get('problem', 'refused')}")
    return first


async def _score_accepted(items: Sequence[Mapping[str, Any]], scorer: Scorer) -> list[Outcome]:
    """Score the items, those that the model refuses set aside; each round sets some aside."""
    outcomes: dict[int, Outcome] = {}
    while pending := [place for place in range(len(items)) if place not in outcomes]:
        try:
            scored = await _score_in_parts([items[place] for place in pending], scorer)
        except ItemsRefused as refused:
            for place, problem in refused.problems.items():
                failure = ItemFailure("invalid_item", problem)
                outcomes[pending[place]] = _failed(failure, items[pending[place]])
        else:
            outcomes.update(zip(pending, scored, strict=True))
    return [outcomes[place] for place in range(len(items))]


async def _score_in_parts(items: Sequence[Mapping[str, Any]], scorer: Scorer) -> list[Outcome]:
    try:
        return await scorer(items)
    except BatchTooLarge as error:
        if len(items) == 1:
            return [_failed(ItemFailure("request_too_large", str(error)), items[0])]
    half = len(items) // 2
    first = await _score_in_parts(items[:half], scorer)
    return first + await _score_in_parts(items[half:], scorer)


def _parsed_item(line: Line) -> dict[str, Any] | ItemFailure:
    try:
        item = orjson.loads(line.text)
    except orjson.JSONDecodeError as error:
        return ItemFailure("invalid_line", f"not JSON: {error.msg} at column {error.colno}")
    if not isinstance(item, dict):
        return ItemFailure("invalid_line", "a line must hold a JSON object, the item's fields")
    return item


def _failed(failure: ItemFailure, item: Mapping[str, Any] | None) -> Outcome:
    names = (item or {}).get("id"), (item or {}).get("group")
    name, group = (value if isinstance(value, str) else None for value in names)
    result = ItemResult(
        index=0,
        id=name,
        group=group,
        status="error",
        score=None,
        raw=None,
        channels={},
        flags=[],
        tokens=0,
        source=None,
        details={},
        error=failure,
    )
    return Outcome(result, None)


def _parsed_record(text: bytes, place: int) -> dict[str, Any]:
    try:
        record = orjson.loads(text)
    except orjson.JSONDecodeError:
        record = None
    if not isinstance(record, dict) or not {"line", "digest", "status", "error"} <= record.keys():
        raise CannotResume(f"line {place} of the output is not a result of this command")
    return record


def _check_torn(text: bytes) -> None:
    """What is cut off must be ours: the output may be a file named by mistake."""
    if not text.startswith(RECORD_START[: len(text)]):
        raise CannotResume("the last line of the output is not a result of this command")


def _note(recorded: Recorded, record: Mapping[str, Any], line: Line, place: int) -> None:
    error = record["error"]
    failure = ItemFailure(str(error.get("code")), "") if isinstance(error, dict) else None
    recorded.tally.add(failure)
    if record.get("model") is None:
        return
    identity = Identity(str(record["model"]), str(record.get("fingerprint")))
    if recorded.identity is None:
        recorded.identity, recorded.seen = identity, line
    elif identity != recorded.identity:
        raise CannotResume(f"line {place} of the output is of another model than those before it")


def _check_unchanged(recorded: Recorded, outcomes: Sequence[Outcome]) -> None:
    for outcome in outcomes:
        if outcome.identity is None:
            continue
        if recorded.identity is None:
            recorded.identity = outcome.identity
        elif outcome.identity != recorded.identity:
            raise Halted(_changed(recorded.identity, outcome.identity), RESTART_HINT, misused=True)


def _changed(before: Identity | None, now: Identity) -> str:
    assert before is not None
    if before.model != now.model:
        return f"the output is of {before.model}, and {now.model} answers now"
    return (
        f"the output is of {before.model} with fingerprint {before.fingerprint[:18]}…, now it is "
        f"{now.fingerprint[:18]}… (other weights or other options)"
    )


def _write(output: BinaryIO, data: bytes) -> None:
    left = memoryview(data)
    try:
        while left:
            left = left[output.write(left) :]
        output.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Halted(f"cannot write the output: {error.strerror}") from error
