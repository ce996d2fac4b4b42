"""The command line: serve, score a file, rank candidates, manage models, print the API."""

import json
import os
import sys
from typing import Annotated

import typer

from assay import __version__
from assay.app import create_app
from assay.cli.best_of_n import best_of_n
from assay.cli.models import models_app
from assay.cli.process import QuietPipes, silence_progress_bars
from assay.cli.score import score
from assay.cli.serve import serve
from assay.settings import Settings

app = typer.Typer(
    cls=QuietPipes,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Assay, a server for reward models.",
    epilog="Example: ASSAY_MODELS=reference assay serve",
)
app.command(epilog="Example: ASSAY_MODELS=reference assay serve --port 8000")(serve)
app.command(epilog="Example: assay score items.jsonl --model reference")(score)
app.command(
    "best-of-n",
    epilog="Example: assay best-of-n --model reference --field prompt='Name a colour' "
    "'A colour: red' 'No'",
)(best_of_n)


def _show_version(is_requested: bool) -> None:
    if is_requested:
        typer.echo(f"assay {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="The version.")
    ] = False,
) -> None:
    """Run Assay, a server for reward models."""
    silence_progress_bars(os.environ, sys.stderr)


@app.command(epilog="Example: assay openapi > openapi.json")
def openapi() -> None:
    """Print the OpenAPI document of the service.

    It is the same for all models.
    """
    document = create_app(Settings(models=("reference",))).openapi()
    typer.echo(json.dumps(document, indent=2, sort_keys=True))


app.add_typer(models_app, name="models")
