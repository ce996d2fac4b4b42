"""What the deployment files must agree on with the code and the documentation; needs no engine."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from assay.settings import Settings, variable_name

ROOT = Path(__file__).resolve().parents[2]
SET_BY_THE_IMAGE = {"host", "port"}
COMPOSED = ("compose.yaml", "compose.gpu.yaml")


@pytest.fixture
def server() -> dict[str, Any]:
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    assert isinstance(services["assay"], dict)
    return services["assay"]


def test_every_setting_passes_through_compose(server: dict[str, Any]) -> None:
    passed = {name for name in server["environment"] if name.startswith("ASSAY_")}
    fields = set(Settings.model_fields) - SET_BY_THE_IMAGE
    assert passed == {variable_name(field) for field in fields}


def test_a_stop_is_given_longer_than_draining_takes(server: dict[str, Any]) -> None:
    grace = re.fullmatch(r"\$\{DEPLOY_STOP:-(\d+)s\}", server["stop_grace_period"])
    assert grace is not None
    requests_then_models = 2 * Settings().drain_timeout
    assert int(grace[1]) > requests_then_models


def test_every_variable_of_the_deployment_is_documented() -> None:
    page = (ROOT / "docs/deploy.md").read_text()
    arguments = re.findall(r"^ARG (\w+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    used = {
        name
        for file in COMPOSED
        for name in re.findall(r"\$\{((?:DEPLOY|BUILD)_\w+)", (ROOT / file).read_text())
    }
    assert [name for name in sorted(used | set(arguments)) if f"`{name}`" not in page] == []


def test_every_build_argument_passes_through_compose(server: dict[str, Any]) -> None:
    arguments = re.findall(r"^ARG (\w+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert set(server["build"]["args"]) == set(arguments)
