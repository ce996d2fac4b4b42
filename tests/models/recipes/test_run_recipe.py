"""The command that runs a recipe: order of the steps, dry run, errors; and packaging."""

import importlib.util
import shlex
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.paths import ROOT

from assay_models.repository import ModelRepository, digest_of, embedded_root
from recipes import __main__ as command
from recipes import package_model
from recipes.steps import RECIPES

STEPS = {
    "code": ["train", "surprisal-weight", "release", "package", "calibrate", "evaluate"],
    "nli": [
        *("train", "package", "calibrate", "evaluate"),
        *("train-small", "package-small", "calibrate-small", "evaluate-small"),
    ],
    "video_qpp": ["train", "package", "evaluate"],
}


def module_of(arguments: list[str]) -> str:
    return arguments[len(arguments) - arguments[::-1].index("-m")]


@pytest.mark.parametrize("name", RECIPES)
def test_the_steps_are_in_order_and_their_modules_exist(name: str) -> None:
    recipe = RECIPES[name]
    assert [step.name for step in recipe.steps] == STEPS[name]
    for step in recipe.steps:
        module = module_of(step.command(Path("DATA"), Path("WORK")))
        assert importlib.util.find_spec(module) is not None, module


@pytest.mark.parametrize("name", RECIPES)
def test_the_readme_of_a_recipe_has_its_steps_in_order_and_its_one_command(name: str) -> None:
    readme = (ROOT / "models" / "recipes" / name / "README.md").read_text(encoding="utf-8")
    assert f"make recipe NAME={name} DATA=../shared/data" in readme
    places = [readme.index(f"| `{step.name}` |") for step in RECIPES[name].steps]
    assert places == sorted(places)
    for step in RECIPES[name].steps:
        line = shlex.join(["python", *step.command(Path("../shared/data"), Path(f"work/{name}"))])
        assert line in readme, line


@pytest.mark.parametrize("name", RECIPES)
def test_a_dry_run_prints_the_commands_in_order_and_runs_none(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("a command ran"))
    command.main([name, "--data", "DATA", "--dry-run"])
    lines = capsys.readouterr().out.splitlines()
    expected = [step.command(Path("DATA"), Path("work") / name) for step in RECIPES[name].steps]
    assert [shlex.split(line)[1:] for line in lines] == expected
    assert str(embedded_root()) not in "\n".join(lines)


def test_steps_run_in_order_from_the_named_one_and_stop_at_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "vqpp").mkdir()
    ran: list[str] = []

    def run(arguments: list[str], *, check: bool) -> SimpleNamespace:
        assert not check
        ran.append(module_of(arguments))
        return SimpleNamespace(returncode=int("evaluate" in ran[-1]))

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(SystemExit, match=r"evaluate failed \(1\); continue with --from evaluate"):
        command.main(["video_qpp", "--data", str(tmp_path), "--from", "package"])
    assert ran == ["recipes.package_model", "recipes.video_qpp.evaluate"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "NAME and --data are required"),
        (["nli"], "NAME and --data are required"),
        (["other", "--data", "."], "invalid choice"),
        (["nli", "--data", ".", "--from", "data"], "the steps are train, package"),
        (["nli", "--data", ".", "--work", str(embedded_root() / "nli")], "is not written to"),
    ],
)
def test_a_wrong_argument_is_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command.main(arguments)
    assert message in capsys.readouterr().err


def test_missing_data_are_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="has no folder nli"):
        command.main(["nli", "--data", str(tmp_path)])


def test_the_list_has_every_recipe_with_its_steps(capsys: pytest.CaptureFixture[str]) -> None:
    command.main(["--list"])
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names == [name for recipe in STEPS for name in (recipe, *STEPS[recipe])]


def test_a_packaged_model_has_the_new_files_and_their_digests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = tmp_path / "released"
    folder = released / "small" / "1"
    folder.mkdir(parents=True)
    (folder / "old.bin").write_bytes(b"old")
    (folder / "kept.bin").write_bytes(b"kept")
    digests = {name: digest_of(folder / name) for name in ("old.bin", "kept.bin")}
    files = "".join(f'"{name}" = "{digest}"\n' for name, digest in digests.items())
    card = f'name = "small"\nversion = 1\nfamily = "reference"\n[weights.own_files]\n{files}'
    (folder / "card.toml").write_text(card)
    (folder / "README.md").write_text("figures of the released model")
    monkeypatch.setattr(package_model, "embedded_root", lambda: released)
    trained = tmp_path / "trained"
    with pytest.raises(SystemExit, match=r"has none of old\.bin, kept\.bin"):
        package_model.package_model("small@1", trained, tmp_path / "models")
    trained.mkdir()
    (trained / "old.bin").write_bytes(b"new")
    made = package_model.package_model("small@1", trained, tmp_path / "models")
    assert {path.name for path in made.iterdir()} == {"card.toml", "old.bin", "kept.bin"}
    repository = ModelRepository([tmp_path / "models"])
    repository.locate(repository.find("small@1"))
    assert (made / "old.bin").read_bytes() == b"new"
    assert (folder / "old.bin").read_bytes() == b"old"
