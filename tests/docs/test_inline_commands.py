"""Commands within a sentence: each has the arguments and options that the command takes."""

import re
import shlex
from collections.abc import Iterator

import pytest
import typer
from typer.core import TyperGroup
from typer.main import get_command

from assay.cli import app

from .blocks import documentation, prose_of

COMMAND = re.compile(r"`(assay [a-z][^`]*)`")
ROOT_COMMAND = get_command(app)


def _inline_commands() -> Iterator[str]:
    for page in documentation():
        text = " ".join(line for _, line in prose_of(page))
        yield from COMMAND.findall(text)


@pytest.mark.parametrize("text", sorted(set(_inline_commands())))
def test_a_command_in_a_sentence_has_the_arguments_that_it_needs(text: str) -> None:
    command, words = ROOT_COMMAND, shlex.split(text)[1:]
    context = typer.Context(command, info_name="assay")
    while isinstance(command, TyperGroup) and words:
        _, found, words = command.resolve_command(context, words)
        assert found is not None
        command = found
    try:
        if words:
            command.make_context(text, words, parent=context).close()
    except typer.BadParameter as error:
        assert "does not exist" in error.format_message()  # noqa: PT017 its files are the reader's
