"""The help of groups of commands."""

import pytest
from support.item_files import run


@pytest.mark.parametrize("group", [[], ["models"]], ids=" ".join)
def test_a_group_cuts_no_line_of_its_commands(group: list[str]) -> None:
    _, _, commands = run(*group, "--help").output.partition("Commands:")
    assert commands
    assert not [line for line in commands.splitlines() if line.endswith("...")]
