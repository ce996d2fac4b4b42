"""The records of an output file: one result per line, resumable at any line."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import orjson

from assay.offline.lines import InputLine
from assay.offline.scorer import Halted, Identity, ItemOutcome, Scorer, score_batch
from assay.types import ItemFailure

RESTART_HINT = "start anew with --restart"
RECORD_START = b'{"line":'


class CannotResume(Exception):
    """The output is not the beginning of what this command would write; the text says why."""

    hint = RESTART_HINT


@dataclass(slots=True)
class LineCounts:
    """The numbers of lines with a result: scored ones, and failures by code."""

    scored: int = 0
    failures: Counter[str] = field(default_factory=Counter)

    @property
    def failed(self) -> int:
        """Lines without a score."""
        return self.failures.total()

    @property
    def done(self) -> int:
        """Lines with a result, scored or failed."""
        return self.scored + self.failed

    def add(self, failure: ItemFailure | None) -> None:
        """Count one line, failed or scored."""
        if failure is None:
            self.scored += 1
        else:
            self.failures[failure.code] += 1


@dataclass(slots=True)
class OutputState:
    """The state of an output file.

    Its complete lines end at byte `end`. `identity` is the model that computed them, and `sample`
    the first input line that the model received; if it received none, the first whose fields it
    refused. `setups` are those of the lines: see `FileScoring`.
    """

    end: int = 0
    counts: LineCounts = field(default_factory=LineCounts)
    identity: Identity | None = None
    sample: InputLine | None = None
    setups: set[str | None] = field(default_factory=set)

    def is_of(self, setup: str | None) -> bool:
        """Return whether all lines, if there are any, are known to be of this setup."""
        return not self.setups or (setup is not None and self.setups == {setup})

    def add_record(self, record: Mapping[str, Any], line: InputLine, number: int) -> None:
        """Count a record of an earlier run.

        Args:
            record: the record.
            line: the input line that it was computed from.
            number: the record's line number in the output.

        Raises:
            CannotResume: the record is of another model than those before it.
        """
        error = record["error"]
        failure = ItemFailure(str(error.get("code")), "") if isinstance(error, dict) else None
        self.counts.add(failure)
        self.setups.add(record.get("setup"))
        if record.get("model") is None:
            if self.sample is None and failure is not None and failure.code == "invalid_item":
                self.sample = line
            return
        identity = Identity(str(record["model"]), str(record.get("fingerprint")))
        if self.identity is None:
            self.identity, self.sample = identity, line
        elif identity != self.identity:
            raise CannotResume(
                f"line {number} of the output is of another model than those before it"
            )

    def check_unchanged(self, outcomes: Sequence[ItemOutcome]) -> None:
        """Check that the model that computed the earlier lines computed these outcomes, too.

        Raises:
            Halted: the model changed.
        """
        for outcome in outcomes:
            if outcome.identity is None:
                continue
            if self.identity is None:
                self.identity = outcome.identity
            elif outcome.identity != self.identity:
                reason = _describe_change(self.identity, outcome.identity)
                raise Halted(reason, RESTART_HINT, is_usage_error=True)


def read_records(output: BinaryIO, lines: Iterator[InputLine]) -> OutputState:
    """Compare the records of an earlier run with the input, and consume their lines of `lines`.

    An incomplete last line is ignored.

    Raises:
        CannotResume: a line is no record, or of another input line, or of another model than the
            lines before it.
    """
    state = OutputState()
    for number, text in enumerate(output, start=1):
        if not text.endswith(b"\n"):
            _check_partial_record(text)
            break
        record = _parse_record(text, number)
        line = next(lines, None)
        if line is None:
            raise CannotResume("the output has more lines than the input")
        if (record["line"], record["digest"]) != (line.number, line.digest):
            raise CannotResume(
                f"line {line.number} of the input is not the one that line {number} of the output "
                "was computed from"
            )
        state.add_record(record, line, number)
        state.end += len(text)
    return state


async def check_same_model(state: OutputState, scorer: Scorer) -> None:
    """Score one recorded line again, to check that the same model and options compute it.

    Raises:
        CannotResume: another model, or the same with other options, computes it now; or only one
            of the two models accepts it.
    """
    if state.sample is None:
        return
    (outcome,) = await score_batch([state.sample], scorer)
    if outcome.identity == state.identity:
        return
    if outcome.identity is None:
        raise CannotResume(_describe_refusal(state, outcome.result.error))
    if state.identity is None:
        raise CannotResume(
            f"line {state.sample.number} of the input was refused when the output was written, "
            f"and {outcome.identity.model} accepts it"
        )
    raise CannotResume(_describe_change(state.identity, outcome.identity))


def encode_record(line: InputLine, outcome: ItemOutcome, setup: str | None = None) -> bytes:
    """Return the output's line for an input line."""
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
        "setup": setup,
    }
    return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)


def _parse_record(text: bytes, number: int) -> dict[str, Any]:
    try:
        record = orjson.loads(text)
    except orjson.JSONDecodeError:
        record = None
    if not isinstance(record, dict) or not {"line", "digest", "status", "error"} <= record.keys():
        raise CannotResume(f"line {number} of the output is not a result of this command")
    return record


def _check_partial_record(text: bytes) -> None:
    """Check that an incomplete last line is a record before it is truncated: the output may be a
    file named by mistake.
    """
    if not text.startswith(RECORD_START[: len(text)]):
        raise CannotResume("the last line of the output is not a result of this command")


def _describe_refusal(state: OutputState, failure: ItemFailure | None) -> str:
    assert state.identity is not None, "only a received line can be refused now"
    assert state.sample is not None
    reason = f" ({failure.code}: {failure.detail})" if failure else ""
    return (
        f"the output is of {state.identity.model}, and the model asked for now refuses line "
        f"{state.sample.number} of the input{reason}"
    )


def _describe_change(before: Identity, now: Identity) -> str:
    if before.model != now.model:
        return f"the output is of {before.model}, and {now.model} answers now"
    return (
        f"the output is of {before.model} with fingerprint {before.fingerprint[:18]}…, now it is "
        f"{now.fingerprint[:18]}… (other weights or other options)"
    )
