"""Installation: every package by version and digest, wheels only, images by digest."""

import json
import re
import tomllib
from pathlib import Path

import pytest
from support.paths import ROOT

REQUIREMENTS = ROOT / "requirements"
LOCKED = sorted([*REQUIREMENTS.glob("*.txt"), ROOT / "tests/trainers/third_party/requirements.txt"])
ENTRY = re.compile(r"([A-Za-z0-9][\w.-]*)==(\S+)")
IMAGE = re.compile(r"(?:image: \S*:-|ARG PYTHON_IMAGE=)([a-z/]+:[\w.-]+)(@[\w:]+)?")


def entries_of(path: Path) -> list[str]:
    """Return the requirements of a file, each on one line."""
    lines = path.read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


def pins_of(path: Path) -> dict[str, str]:
    """Return the versions by normalised name, without a build's own part."""
    found = [ENTRY.match(line) for line in entries_of(path)]
    return {
        re.sub(r"[-_.]+", "-", match[1]).lower(): match[2].partition("+")[0]
        for match in found
        if match
    }


@pytest.mark.parametrize("path", [*LOCKED, ROOT / "weights.txt"], ids=lambda path: path.name)
def test_every_requirement_has_a_version_and_digests(path: Path) -> None:
    entries = entries_of(path)
    assert entries
    for entry in entries:
        assert re.match(r"\S+==\S+ .*--hash=sha256:[0-9a-f]{64}", entry), entry[:80]


@pytest.mark.parametrize("path", sorted(REQUIREMENTS.glob("*.txt")), ids=lambda path: path.name)
def test_locked_versions_are_those_of_the_constraints(path: Path) -> None:
    known = pins_of(ROOT / "constraints.txt")
    assert {name: known.get(name) for name in pins_of(path)} == pins_of(path)


def test_the_locks_hold_every_direct_dependency() -> None:
    locked = {name for path in REQUIREMENTS.glob("*.txt") for name in pins_of(path)}
    server = {*pins_of(REQUIREMENTS / "server.txt"), *pins_of(REQUIREMENTS / "torch.txt")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    client = tomllib.loads((ROOT / "clients/pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]

    def names(requirements: list[str]) -> set[str]:
        found = [re.match(r"[\w.-]+", text) for text in requirements]
        plain = {re.sub(r"[-_.]+", "-", match[0]).lower() for match in found if match}
        return plain - {"assay", "assay-client"}

    needed = names([*project["dependencies"], *extras["models"], *client["dependencies"]])
    assert needed <= server
    assert names([*extras["dev"], *extras["trainers"]]) <= locked


@pytest.mark.parametrize("name", ["Makefile", "Dockerfile"])
def test_every_installation_is_by_digest_or_of_this_project(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8").replace("\\\n", " ")
    commands = re.findall(r"\$\((?:LOCKED|PIP)\) -[^\n|]*|\bpip [^\n;&|]*\binstall [^\n;&]*", text)
    own = ("-e ./clients -e .", "/wheels/*.whl", "pip install --quiet", "$(PIP) --require-hashes")
    assert len(commands) >= 4
    for command in commands:
        is_locked = "$(LOCKED)" in command or "$LOCKED" in command
        assert is_locked or any(part in command for part in own), command
    assert "--require-hashes" in text
    assert "--only-binary :all:" in text


@pytest.mark.parametrize("name", ["Dockerfile", "compose.yaml"])
def test_images_of_others_are_named_by_digest(name: str) -> None:
    found = IMAGE.findall((ROOT / name).read_text(encoding="utf-8"))
    others = [(image, digest) for image, digest in found if not image.startswith("assay:")]
    assert others
    for image, digest in others:
        assert re.fullmatch(r"@sha256:[0-9a-f]{64}", digest), image


def test_the_bill_of_materials_has_every_package_of_the_server_and_its_weights() -> None:
    bill = json.loads((REQUIREMENTS / "sbom.json").read_text(encoding="utf-8"))
    listed = {
        re.sub(r"[-_.]+", "-", part["name"]).lower(): part["version"].partition("+")[0]
        for part in bill["components"]
    }
    files = (REQUIREMENTS / "server.txt", REQUIREMENTS / "torch-cpu.txt", ROOT / "weights.txt")
    assert bill["bomFormat"] == "CycloneDX"
    assert listed == {name: version for path in files for name, version in pins_of(path).items()}


def test_the_notice_names_every_package_of_weights() -> None:
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    for name, version in pins_of(ROOT / "weights.txt").items():
        whole = re.sub(r"-part-00\d$", "-part-001", name)
        assert whole in notice
        assert version in notice
