"""Commands within a sentence: each has the arguments and options that the command takes."""

import re
import shlex
from collections.abc import Iterator

import click
import pytest
from typer.main import get_command

from assay.cli import app

from .blocks import documentation, prose_of

COMMAND = re.compile(r"`(assay [a-z][^`]*)`")
COMMANDS = get_command(app)


def _inline_commands() -> Iterator[str]:
    for page in documentation():
        text = " ".join(line for _, line in prose_of(page))
        yield from COMMAND.findall(text)


@pytest.mark.parametrize("command", sorted(set(_inline_commands())))
def test_a_command_in_a_sentence_names_what_the_command_takes(command: str) -> None:
    context = click.Context(COMMANDS, info_name="assay")
    group, words = COMMANDS, shlex.split(command)[1:]
    while isinstance(group, click.Group) and words:
        _, found, words = group.resolve_command(context, words)
        assert found is not None
        group = found
    if words:
        group.make_context(command, words, parent=context).close()
