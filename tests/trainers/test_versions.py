"""Releases of the tested clients, and the pages that name them."""

import tomllib
from importlib.metadata import version

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CLIENTS = [Requirement(line) for line in PROJECT["optional-dependencies"]["trainers"]]
PINNED = {
    canonicalize_name(line.partition("==")[0]): line.partition("==")[2]
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if "==" in line
}


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_the_installed_client_has_a_tested_release(client: Requirement) -> None:
    assert client.specifier.contains(version(client.name))


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_a_page_names_the_client_and_its_release(client: Requirement) -> None:
    release = PINNED[canonicalize_name(client.name)]
    pages = (ROOT / "docs" / "how-to" / "trainers").glob("*.md")
    text = f"`{client.name}` {release}"
    assert [page.name for page in pages if text in page.read_text(encoding="utf-8")], text
