"""The commands that change the models of a running server."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.servers import listening
from typer.testing import CliRunner

from assay.cli import app
from assay.settings import Settings

CARD = 'name = "words"\nversion = {version}\nfamily = "reference"\n'


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """The URL of a server of `words@1`, with `words@2` in its repository."""
    for version in (1, 2):
        folder = tmp_path / "words" / str(version)
        folder.mkdir(parents=True)
        (folder / "card.toml").write_text(CARD.format(version=version))
    with listening(Settings(models=("words@1",), repository=(tmp_path,), runs="off")) as address:
        yield address


def run(*arguments: str, **environment: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["models", *arguments], env=environment)
    return result.exit_code, result.stdout, result.stderr


def test_load_promote_and_unload_change_the_server(url: str) -> None:
    steps = (
        (["load", "words@2", "--shadow-of", "words@1"], "words@2: ready, shadow of words@1\n"),
        (["promote", "words@2"], "words@2: ready, default\n"),
        (["unload", "words@1"], "words@1: unloaded\n"),
    )
    for arguments, output in steps:
        assert run(*arguments, "--url", url) == (0, output, "")
    assert run("load", "words@1", ASSAY_URL=url) == (0, "words@1: ready\n", "")


def test_a_refusal_is_a_usage_error_with_the_servers_hint(url: str) -> None:
    code, _, errors = run("unload", "words@1", "--url", url)
    assert code == 2
    assert "words@1 is the only model" in errors
    assert "hint: load another one first" in errors
    code, _, errors = run("load", "absent", "--url", url)
    assert (code, "no model 'absent'" in errors) == (2, True)


def test_a_server_that_does_not_answer_stops_the_command() -> None:
    code, _, errors = run("promote", "words@2", "--url", "http://127.0.0.1:9")
    assert code == 3
    assert "no reply from http://127.0.0.1:9" in errors
    assert run("promote", "words@2", "--url", "nowhere")[0] == 3
