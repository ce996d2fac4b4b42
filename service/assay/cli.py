"""The command line."""

import os

import typer
import uvicorn

from assay.app import create_app
from assay.settings import read_settings

app = typer.Typer(no_args_is_help=True, help="Assay, a server for reward models.")


@app.command()
def serve() -> None:
    """Serve."""
    settings = read_settings(os.environ)
    uvicorn.run(create_app(settings), host=settings.host, port=settings.port)


@app.callback()
def main() -> None:
    """Assay."""
