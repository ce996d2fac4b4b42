"""`assay best-of-n`: rank the candidates of one prompt, in this process or on a server."""

import asyncio
import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich import box
from rich.table import Table

from assay.cli.process import Exit, LogLevel, exit_with, on_errors, print_message, print_table
from assay.cli.score import Truncation, remote_client, settings_for
from assay.errors import SettingsError
from assay.offline.files import FileError, opened_input
from assay.offline.local import BATCH_SECONDS, rank_locally
from assay.offline.scorer import Halted
from assay.scoring.best_of_n import BestOfNCall
from assay.scoring.service import ScoreCall
from assay.types import BestOfNReply, ItemResult
from assay_models.base import Options
from assay_models.repository import ModelNotFound

MAX_CANDIDATE_CHARACTERS = 200
"""Characters of a candidate in the table."""

_OPTIONS = {"model", "candidates", "top_n", "tie_margin", "abstain_below", "min_confidence"}
_RESERVED = _OPTIONS | {"options", "run", "step", "timeout", "priority"}

Candidate = str | Mapping[str, Any]


def _check_finite(value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter("must be a finite number")
    return value


Candidates = Annotated[list[str] | None, typer.Argument(help="The candidates.")]
Model = Annotated[str, typer.Option(help="The model, as name or name@version.")]
Fields = Annotated[
    list[str] | None,
    typer.Option(
        "--field",
        "-f",
        help="A field that all candidates share: NAME=TEXT, or NAME:=JSON. May be repeated.",
    ),
]
CandidateFile = Annotated[
    Path | None, typer.Option(help="A file of more candidates, one per line; - is stdin.")
]
IsJsonLines = Annotated[
    bool, typer.Option("--jsonl", help="The file's lines are JSON: texts, or objects of fields.")
]
Url = Annotated[
    str | None,
    typer.Option(help="The server to rank on. Without it the model is loaded in this process."),
]
TopN = Annotated[int | None, typer.Option(min=1, help="Show only the first N ranks.")]
TieMargin = Annotated[
    float | None,
    typer.Option(min=0, callback=_check_finite, help="Report scores this close as ties."),
]
AbstainBelow = Annotated[
    float | None,
    typer.Option(callback=_check_finite, help="Choose none if the best score is lower."),
]
MinConfidence = Annotated[
    float | None,
    typer.Option(
        min=0.5,
        max=1,
        callback=_check_finite,
        help="Choose none if the confidence is lower or unknown, or the best are tied.",
    ),
]
TruncationSide = Annotated[
    Truncation, typer.Option(help="Treatment of candidates that are too long.")
]
IsRaw = Annotated[bool, typer.Option("--raw", help="Return the raw model output as score.")]
IsJson = Annotated[bool, typer.Option("--json", help="Print the reply of POST /v1/best-of-n.")]
Timeout = Annotated[float, typer.Option(min=0.001, help="With --url: seconds, including retries.")]
Severity = Annotated[LogLevel, typer.Option(help="The lowest severity to log.")]


def best_of_n(
    candidates: Candidates = None,
    *,
    model: Model,
    field: Fields = None,
    file: CandidateFile = None,
    jsonl: IsJsonLines = False,
    url: Url = None,
    top_n: TopN = None,
    tie_margin: TieMargin = None,
    abstain_below: AbstainBelow = None,
    min_confidence: MinConfidence = None,
    truncation: TruncationSide = Truncation.error,
    raw: IsRaw = False,
    as_json: IsJson = False,
    timeout: Timeout = 600.0,
    log_level: Severity = LogLevel.critical,
) -> None:
    """Rank the candidates of one prompt, best first.

    Exit code 0: all were scored; 1: some could not be scored and come last; 2: usage error; 3:
    stopped.
    """
    logging.basicConfig(level=log_level.upper())
    with on_errors((SettingsError, ModelNotFound, FileError)):
        offered = [*(candidates or ()), *_read_file(file, jsonl)]
        if not offered:
            reason = "there is no candidate"
            raise exit_with(Exit.USAGE, reason, "name some, or a file of them with --file")
        options = Options(truncation.value, raw)
        call = BestOfNCall(
            score=ScoreCall(model, (), options, timeout=BATCH_SECONDS),
            candidates=offered,
            shared=dict(_parse_field(text) for text in field or ()),
            top_n=top_n,
            tie_margin=tie_margin,
            abstain_below=abstain_below,
            min_confidence=min_confidence,
        )
        reply = _rank(call, url, timeout)
    if as_json:
        typer.echo(json.dumps(asdict(reply), indent=2))
    else:
        _show(reply, offered)
    _conclude(reply, call)


def _rank(call: BestOfNCall, url: str | None, timeout: float) -> BestOfNReply:
    model = call.score.model
    try:
        if url is None:
            settings, entry = settings_for(model)
            return asyncio.run(rank_locally(settings, entry.card.id, call))
        return _rank_remotely(url, timeout, model, call)
    except Halted as error:
        code = Exit.USAGE if error.is_usage_error else Exit.STOPPED
        raise exit_with(code, error.detail, error.hint) from None


def _rank_remotely(url: str, timeout: float, model: str, call: BestOfNCall) -> BestOfNReply:
    remote, client = remote_client(url, timeout)
    try:
        reply: BestOfNReply = asyncio.run(remote.rank_remotely(client, model, call))
    except ValueError as error:
        raise exit_with(Exit.USAGE, str(error)) from None
    return reply


def _read_file(file: Path | None, jsonl: bool) -> Iterator[Candidate]:
    if file is None:
        return
    with opened_input(file) as lines:
        for number, line in enumerate(lines, 1):
            try:
                text = line.decode().rstrip("\r\n")
                if text.strip():
                    yield _parse_candidate(text) if jsonl else text
            except ValueError as error:
                kind = "JSON: a text or an object" if jsonl else "UTF-8"
                raise FileError(f"line {number} of {file} is not {kind}") from error


def _parse_candidate(text: str) -> Candidate:
    value = json.loads(text, parse_constant=_reject)
    if not isinstance(value, str | dict):
        raise ValueError
    return value


def _reject(constant: str) -> NoReturn:
    raise ValueError(constant)


def _parse_field(argument: str) -> tuple[str, Any]:
    name, equals, text = argument.partition("=")
    is_json = name.endswith(":")
    name = name.removesuffix(":").strip()
    if not (equals and name):
        raise exit_with(Exit.USAGE, "--field must be NAME=TEXT or NAME:=JSON")
    if name in _RESERVED:
        raise exit_with(Exit.USAGE, f"{name!r} is no field of an item", "see --help for options")
    if not is_json:
        return name, text
    try:
        return name, json.loads(text, parse_constant=_reject)
    except ValueError:
        raise exit_with(Exit.USAGE, f"--field {name}:= is not followed by JSON") from None


def _show(reply: BestOfNReply, offered: Sequence[Candidate]) -> None:
    channels = list(dict.fromkeys(name for result in reply.results for name in result.channels))
    channels = channels if len(channels) > 1 else []
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for heading in ("rank", "score", "margin", *channels):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("candidate", overflow="fold")
    table.add_column("notes", overflow="fold")
    for rank, place in enumerate(reply.ranking, 1):
        result = reply.results[place.index]
        values = [place.score, place.margin, *(result.channels.get(name) for name in channels)]
        text = _printable(offered[place.index])
        table.add_row(str(rank), *(_format(value) for value in values), text, _notes(reply, result))
    print_table(table)


def _printable(candidate: Candidate) -> str:
    if not isinstance(candidate, str):
        candidate = json.dumps(candidate, ensure_ascii=False)
    text = " ".join(candidate.split())
    text = (
        text
        if len(text) <= MAX_CANDIDATE_CHARACTERS
        else f"{text[: MAX_CANDIDATE_CHARACTERS - 1]}…"
    )
    # A candidate must not send control characters to the terminal.
    return "".join(sign if sign.isprintable() else "\ufffd" for sign in text)


def _format(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _notes(reply: BestOfNReply, result: ItemResult) -> str:
    notes = ["best"] if result.index == reply.best else []
    if any(result.index in tied for tied in reply.ties):
        notes.append("tied")
    if result.error is not None:
        notes.append(result.error.code)
    return ", ".join([*notes, *result.flags])


def _conclude(reply: BestOfNReply, call: BestOfNCall) -> NoReturn:
    failed = [result for result in reply.results if result.error is not None]
    for result in failed:
        if result.error is not None:
            error = result.error
            print_message(f"candidate {result.index + 1}: {error.code}: {error.detail}")
    if reply.abstained:
        print_message(f"none is chosen: {_reason_of_abstention(reply, call)}")
    raise typer.Exit(Exit.FAILED if failed else Exit.DONE)


def _reason_of_abstention(reply: BestOfNReply, call: BestOfNCall) -> str:
    best = reply.ranking[0]
    if best.score is None:
        return "no candidate has a score"
    if call.abstain_below is not None and best.score < call.abstain_below:
        return f"the best score is {best.score:.4f}, below --abstain-below {call.abstain_below:g}"
    if best.confidence is None:
        return "the confidence is unknown: a rule decided a score, or only one candidate has one"
    if best.confidence < (call.min_confidence or 0.0):
        minimum = f"--min-confidence {call.min_confidence:g}"
        return f"the confidence is {best.confidence:.4f}, below {minimum}"
    return "the best candidates are tied"
