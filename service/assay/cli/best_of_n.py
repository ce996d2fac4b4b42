"""`assay best-of-n`: the candidates of one prompt, ranked here or on a server."""

import asyncio
import json
import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from assay.cli.models import PIPE_WIDTH
from assay.cli.process import Exit, LogLevel, exit_with, on_errors, tell
from assay.cli.score import Truncation, remote_client, settings_for
from assay.errors import SettingsError
from assay.offline.files import FileError, opened_input
from assay.offline.lines import Halted
from assay.offline.local import BATCH_SECONDS, ranked_here
from assay.scoring.best_of_n import BestOfNCall
from assay.scoring.service import ScoreCall
from assay.types import BestOfNReply, ItemResult
from assay_models.base import Options
from assay_models.repository import ModelNotFound

SHOWN = 200
"""Characters of a candidate in the table."""

_OPTIONS = {"model", "candidates", "top_n", "tie_margin", "abstain_below", "min_confidence"}
_NO_FIELDS = _OPTIONS | {"options", "run", "timeout", "priority"}

Candidate = str | Mapping[str, Any]


def _finite(value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter("must be a finite number")
    return value


def best_of_n(
    candidates: Annotated[
        list[str] | None, typer.Argument(help="The candidates, as many as there are.")
    ] = None,
    *,
    model: Annotated[str, typer.Option(help="The model, as name or name@version.")],
    field: Annotated[
        list[str] | None,
        typer.Option(
            "--field",
            "-f",
            help="What all candidates share: NAME=TEXT, or NAME:=JSON. As often as needed.",
        ),
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="More candidates, one a line; - is stdin.")
    ] = None,
    jsonl: Annotated[
        bool,
        typer.Option("--jsonl", help="The file's lines are JSON: texts, or objects of fields."),
    ] = False,
    url: Annotated[
        str | None,
        typer.Option(help="Rank on this server. Without it the model is loaded here."),
    ] = None,
    top_n: Annotated[int | None, typer.Option(min=1, help="Show only so many places.")] = None,
    tie_margin: Annotated[
        float | None,
        typer.Option(min=0, callback=_finite, help="Scores no further apart are told as ties."),
    ] = None,
    abstain_below: Annotated[
        float | None,
        typer.Option(callback=_finite, help="Choose none where the best scores less."),
    ] = None,
    min_confidence: Annotated[
        float | None,
        typer.Option(
            min=0.5, max=1, callback=_finite, help="Choose none where the model is less sure."
        ),
    ] = None,
    truncation: Annotated[
        Truncation, typer.Option(help="What happens to candidates that are too long.")
    ] = Truncation.error,
    raw: Annotated[bool, typer.Option("--raw", help="The model's own number as score.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="The reply of POST /v1/best-of-n.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=0.001, help="With --url: seconds, retries included.")
    ] = 600.0,
    log_level: Annotated[LogLevel, typer.Option(help="What is logged.")] = LogLevel.critical,
) -> None:
    """Rank the candidates of one prompt, best first.

    Exit code 0: all were scored; 1: some could not be, and come last; 2: wrong usage; 3: stopped.
    """
    logging.basicConfig(level=log_level.upper())
    with on_errors((SettingsError, ModelNotFound, FileError)):
        offered = [*(candidates or ()), *_in_file(file, jsonl)]
        if not offered:
            reason = "there is no candidate"
            raise exit_with(Exit.USAGE, reason, "name some, or a file of them with --file")
        options = Options(truncation.value, raw)
        call = BestOfNCall(
            ScoreCall(model, (), options, timeout=BATCH_SECONDS),
            offered,
            dict(_field(one) for one in field or ()),
            top_n,
            tie_margin,
            abstain_below,
            min_confidence,
        )
        reply = _ranked(call, url, timeout)
    if as_json:
        typer.echo(json.dumps(asdict(reply), indent=2))
    else:
        _show(reply, offered)
    _conclude(reply)


def _ranked(call: BestOfNCall, url: str | None, timeout: float) -> BestOfNReply:
    model = call.score.model
    try:
        if url is None:
            return asyncio.run(ranked_here(*settings_for(model), call))
        return _ranked_there(url, timeout, model, call)
    except Halted as error:
        code = Exit.USAGE if error.misused else Exit.STOPPED
        raise exit_with(code, error.detail, error.hint) from None


def _ranked_there(url: str, timeout: float, model: str, call: BestOfNCall) -> BestOfNReply:
    remote, client = remote_client(url, timeout)
    try:
        reply: BestOfNReply = asyncio.run(remote.ranked_there(client, model, call))
    except ValueError as error:
        raise exit_with(Exit.USAGE, str(error)) from None
    return reply


def _in_file(file: Path | None, jsonl: bool) -> Iterator[Candidate]:
    if file is None:
        return
    with opened_input(file) as lines:
        for number, line in enumerate(lines, 1):
            try:
                text = line.decode().rstrip("\r\n")
                if text.strip():
                    yield _read(text) if jsonl else text
            except ValueError as error:
                kind = "JSON: a text or an object" if jsonl else "UTF-8"
                raise FileError(f"line {number} of {file} is not {kind}") from error


def _read(text: str) -> Candidate:
    value = json.loads(text, parse_constant=_refuse)
    if not isinstance(value, str | dict):
        raise ValueError
    return value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def _field(given: str) -> tuple[str, Any]:
    name, equals, text = given.partition("=")
    as_json = name.endswith(":")
    name = name.removesuffix(":").strip()
    if not (equals and name):
        raise exit_with(Exit.USAGE, "--field must be NAME=TEXT or NAME:=JSON")
    if name in _NO_FIELDS:
        raise exit_with(Exit.USAGE, f"{name!r} is no field of an item", "see --help for options")
    if not as_json:
        return name, text
    try:
        return name, json.loads(text, parse_constant=_refuse)
    except ValueError:
        raise exit_with(Exit.USAGE, f"--field {name}:= is not followed by JSON") from None


def _show(reply: BestOfNReply, offered: Sequence[Candidate]) -> None:
    channels = list(dict.fromkeys(name for one in reply.results for name in one.channels))
    channels = channels if len(channels) > 1 else []
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for heading in ("rank", "score", "margin", *channels):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("candidate", overflow="fold")
    table.add_column("notes", overflow="fold")
    for rank, place in enumerate(reply.ranking, 1):
        result = reply.results[place.index]
        numbers = [place.score, place.margin, *(result.channels.get(name) for name in channels)]
        text = _line(offered[place.index])
        table.add_row(str(rank), *(_number(one) for one in numbers), text, _notes(reply, result))
    width = None if os.isatty(1) else PIPE_WIDTH
    Console(width=width, highlight=False, markup=False).print(table)


def _line(candidate: Candidate) -> str:
    if not isinstance(candidate, str):
        candidate = json.dumps(candidate, ensure_ascii=False)
    text = " ".join(candidate.split())
    text = text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"
    # What a terminal would obey is not for a candidate to say.
    return "".join(sign if sign.isprintable() else "\ufffd" for sign in text)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _notes(reply: BestOfNReply, result: ItemResult) -> str:
    notes = ["best"] if result.index == reply.best else []
    if any(result.index in tied for tied in reply.ties):
        notes.append("tied")
    if result.error is not None:
        notes.append(result.error.code)
    return ", ".join([*notes, *result.flags])


def _conclude(reply: BestOfNReply) -> NoReturn:
    failed = [one for one in reply.results if one.error is not None]
    for one in failed:
        if one.error is not None:
            tell(f"candidate {one.index + 1}: {one.error.code}: {one.error.detail}")
    if reply.abstained:
        tell("none is chosen: the best is not good enough, or not sure enough, or has no score")
    raise typer.Exit(Exit.FAILED if failed else Exit.DONE)
