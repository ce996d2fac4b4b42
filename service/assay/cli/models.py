"""`assay models`: list models, show their cards, verify their examples, change a server's."""

import asyncio
import json
import logging
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.table import Table

from assay.cli.lifecycle import load, promote, unload
from assay.cli.process import Exit, LogLevel, exit_with, local_settings, on_errors, print_table
from assay.errors import SettingsError
from assay.offline.local import running_service
from assay.selection import open_repository, select_entries
from assay.self_test import SelfTest
from assay.settings import Settings
from assay_models.card import CardError, ModelCard, Quality
from assay_models.repository import (
    ModelNotFound,
    ModelRepository,
    RepositoryEntry,
    digest_of,
    missing_weights,
)

models_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Models of the repository and of a running server.",
)
models_app.command(epilog="Example: assay models load code@3 --shadow-of code@2")(load)
models_app.command(epilog="Example: assay models promote code@3")(promote)
models_app.command(epilog="Example: assay models unload code@2")(unload)


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of verifying one model; `failure` is the reason why it could not be loaded."""

    model: str
    self_test: SelfTest | None
    failure: str | None
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether a server would serve the model."""
        return self.failure is None

    def __str__(self) -> str:
        test, seconds = self.self_test, f"{self.seconds:.2f} s"
        if test is None:
            outcome = self.failure or "its card has no example to compute"
            return f"{self.model}: {'ok' if self.passed else 'FAILED'}, {outcome}, {seconds}"
        word = "ok" if test.passed else "MISMATCH"
        return (
            f"{self.model}: {word}, expected {test.expected:.6g}, got {test.got:.6g}, "
            f"tolerance {test.tolerance:g}, {seconds}"
        )


@models_app.command("list", epilog="Example: assay models list")
def list_models() -> None:
    """List all models: weights, licence, first measured figure."""
    repository = _repository(local_settings_or_exit())
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for heading in ("model", "default", "family", "weights", "licence", "quality"):
        table.add_column(heading, overflow="fold")
    with on_errors((CardError,)):
        cards = repository.cards()
    for card in cards:
        entry = repository.find(card.id)
        default = "yes" if repository.find(card.name) is entry else "no"
        quality = _headline(card)
        weights = weights_state(repository, entry)
        table.add_row(card.id, default, card.family, weights, _licence(card), quality)
    print_table(table)


@models_app.command("show", epilog="Example: assay models show reference")
def show_model(
    name: Annotated[str, typer.Argument(help="name or name@version.")],
    as_json: Annotated[bool, typer.Option("--json", help="The whole card as JSON.")] = False,
) -> None:
    """Show a model's card."""
    repository = _repository(local_settings_or_exit())
    with on_errors((ModelNotFound,)):
        entry = repository.find(name)
    if as_json:
        card = {"id": entry.card.id, **entry.card.model_dump(mode="json")}
        typer.echo(json.dumps(card, indent=2, sort_keys=True, ensure_ascii=False))
        return
    typer.echo("\n".join(_describe(entry.card, weights_state(repository, entry))))


@models_app.command("verify", epilog="Example: assay models verify reference")
def verify_models(
    names: Annotated[
        list[str] | None, typer.Argument(help="name or name@version; default: all served models.")
    ] = None,
    log_level: Annotated[
        LogLevel, typer.Option(help="The lowest severity to log.")
    ] = LogLevel.critical,
) -> None:
    """Verify that models load and compute their card's example.

    The digests of their files are verified first.

    Exit code 1: a model does not compute the score its card states, or cannot be loaded.
    """
    logging.basicConfig(level=log_level.upper())
    settings = local_settings_or_exit()
    repository = _repository(settings)
    with on_errors((SettingsError, ModelNotFound)):
        entries = [repository.find(name) for name in names or []]
        entries = entries or select_entries(settings, repository)
    if not entries:
        raise exit_with(Exit.USAGE, "no model is served", "name one: assay models verify NAME")
    passed = True
    for entry in entries:
        with on_errors((SettingsError,)):
            verification = asyncio.run(verify_model(settings, entry.card.id))
        typer.echo(str(verification))
        passed &= verification.passed
    raise typer.Exit(Exit.DONE if passed else Exit.FAILED)


@models_app.command(
    "digest", epilog="Example: assay models digest my-checkpoint >> my-models/mine/1/card.toml"
)
def digest_folder(
    folder: Annotated[Path, typer.Argument(help="A checkpoint.", exists=True, file_okay=False)],
) -> None:
    """Print the digests of a folder's files as a table for a card.

    Cards, Markdown and hidden files are omitted.
    """
    typer.echo("[weights.files]")
    for path in _checkpoint_files(folder):
        name = json.dumps(path.relative_to(folder).as_posix(), ensure_ascii=False)
        typer.echo(f'{name} = "{digest_of(path)}"')


async def verify_model(settings: Settings, model: str) -> Verification:
    """Load one model as a server would, including digests and self-test."""
    began = time.monotonic()
    async with running_service(settings.model_copy(update={"models": (model,)})) as service:
        served = service.find(model)
        await served.loaded()
        failure = served.failure or served.unproven
        return Verification(model, served.self_test, failure, time.monotonic() - began)


def local_settings_or_exit() -> Settings:
    """Return the settings of this process's environment; exit if they are invalid."""
    with on_errors((SettingsError,)):
        return local_settings(os.environ)


def weights_state(repository: ModelRepository, entry: RepositoryEntry) -> str:
    """Return whether a model's files are installed, without computing their digests."""
    weights = entry.card.weights
    if weights.source == "hub":
        return f"hub: {weights.hub}"
    unchecked = weights.model_copy(update={"files": {}, "own_files": {}})
    card = entry.card.model_copy(update={"weights": unchecked})
    try:
        files = repository.locate(replace(entry, card=card))
    except CardError as error:
        return "missing: " + str(error).removeprefix(f"{entry.card.id} ")
    named = [(entry.folder, name) for name in weights.own_files]
    if files.weights is not None:
        named += [(files.weights, name) for name in weights.files]
    absent = [name for folder, name in named if not (folder / name).is_file()]
    if absent:
        return f"missing: {', '.join(absent)}"
    if weights.source == "none":
        return "none needed"
    missing = None if weights.files else _missing_unlisted(files.weights)
    return "installed" if missing is None else f"missing: {missing}"


def _missing_unlisted(folder: Path | None) -> str | None:
    """Return which weights are absent from a folder whose files the card does not list."""
    if folder is None or any(folder.glob("*.gguf")):
        return None
    try:
        return missing_weights(folder)
    except ValueError as error:
        return str(error)


def _repository(settings: Settings) -> ModelRepository:
    with on_errors((SettingsError,)):
        return open_repository(settings)


def _licence(card: ModelCard) -> str:
    return card.licence or "not stated"


def _headline(card: ModelCard) -> str:
    rows = sorted(card.quality, key=lambda quality: not quality.headline)
    return f"{_figure(rows[0])} on {rows[0].dataset}" if rows else "not measured"


def _figure(quality: Quality) -> str:
    interval = f"[{quality.low:.3f}, {quality.high:.3f}]"
    return f"{quality.metric} {quality.value:.3f} {interval}"


def _describe(card: ModelCard, weights: str) -> Iterator[str]:
    yield f"{card.id}  {card.title}".rstrip()
    if card.summary:
        yield card.summary
    yield ""
    facts = {
        "family": card.family,
        "licence": _licence(card),
        "weights": weights,
        "longest item": f"{card.limits.max_tokens:,} tokens",
        "scores compare": card.comparable.replace("_", " "),
        "resolution": f"{card.resolution:g}",
    }
    if card.training is not None:
        facts["recipe"] = card.training.recipe
        facts["backbone"] = card.training.backbone or "none"
        facts["data"] = "; ".join(card.training.data) or "none"
    if card.reference is not None:
        usual = card.reference
        facts["usual scores"] = f"mean {usual.mean:.3f}, std {usual.std:.3f} over {usual.n:,} items"
    for name, fact in facts.items():
        yield f"{name + ':':<16}{fact}"
    yield from _describe_quality(card.quality)
    yield from _describe_list("limitations", card.limitations)
    if card.example is not None:
        example = card.example
        expected = f"scores {example.score:.6g} within {example.tolerance:g}"
        lines = [json.dumps(example.item, ensure_ascii=False), expected]
        yield from _describe_list("example", lines)


def _describe_quality(figures: Sequence[Quality]) -> Iterator[str]:
    for command, measured in groupby(figures, lambda figure: figure.command):
        yield from ("", f"quality, by `{command}`:")
        for (dataset, n), rows in groupby(measured, lambda figure: (figure.dataset, figure.n)):
            yield f"  - {dataset}, n = {n:,}"
            for row in rows:
                baselines = "".join(f"; {base.name} {base.value:.3f}" for base in row.baselines)
                note = f" ({row.note})" if row.note else ""
                yield f"    - {_figure(row)}{baselines}{note}"


def _describe_list(heading: str, lines: Sequence[str]) -> Iterator[str]:
    rows = [f"  - {line}" for line in lines]
    if rows:
        yield from ("", f"{heading}:", *rows)


def _checkpoint_files(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and path.name != "card.toml"
        and path.suffix.lower() != ".md"
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
