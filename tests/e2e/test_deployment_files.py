"""What the deployment files must agree on with the code and the documentation; needs no engine."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry
from support.paths import ROOT

from assay.metrics import Metrics
from assay.settings import Settings, variable_name

SET_BY_THE_IMAGE = {"host", "port"}
COMPOSED = ("compose.yaml", "compose.gpu.yaml")
MONITORING = ROOT / "deploy" / "monitoring"
DASHBOARD = json.loads((MONITORING / "grafana" / "dashboards" / "assay.json").read_text())


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
    page = (ROOT / "docs/how-to/deploy.md").read_text()
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


def series() -> set[str]:
    """Every name that a query may use, and the labels that go with it."""
    registry = CollectorRegistry()
    Metrics(registry)
    suffixes = {
        "counter": ("_total",),
        "gauge": ("",),
        "histogram": ("_bucket", "_sum", "_count"),
    }
    return {
        one.name + suffix for one in registry.collect() for suffix in suffixes.get(one.type, ())
    }


def labels_of(name: str) -> set[str]:
    metrics = Metrics(CollectorRegistry())
    base = re.sub(r"_(total|bucket|sum|count)$", "", name)
    (found,) = {
        one
        for one, names in metrics.registry._collector_to_names.items()
        if base in names or name in names
    }
    return {*found._labelnames, "le", "instance"}  # the last is Prometheus's own


def queries() -> Iterator[str]:
    for panel in DASHBOARD["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))
    yield from (one["query"]["query"] for one in DASHBOARD["templating"]["list"])
    for group in yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]:
        yield from (rule["expr"] for rule in group["rules"])


@pytest.mark.parametrize("query", sorted(set(queries())))
def test_what_is_asked_of_prometheus_is_there(query: str) -> None:
    names = set(re.findall(r"assay_\w+", query))
    assert names
    assert names <= series()
    known = set.union(*map(labels_of, names))
    matched = re.findall(r"(\w+)\s*=~?\"", query)
    grouped = [name for part in re.findall(r"by \(([^)]*)\)", query) for name in part.split(", ")]
    asked = re.findall(r"label_values\(\w+, (\w+)\)", query)
    assert {*matched, *grouped, *asked} <= known


def test_the_dashboard_is_one_that_grafana_can_load() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    sources = yaml.safe_load(
        (MONITORING / "grafana/provisioning/datasources/prometheus.yml").read_text()
    )["datasources"]
    uids = {source["uid"] for source in sources}
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] in uids
            assert panel["targets"]


def test_no_two_panels_lie_on_one_another() -> None:
    taken: set[tuple[int, int]] = set()
    for place in (panel["gridPos"] for panel in DASHBOARD["panels"]):
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        taken |= cells


def test_monitoring_is_asked_for_pinned_and_made_of_files_that_are_there() -> None:
    composed = yaml.safe_load((ROOT / "compose.yaml").read_text())
    services = composed["services"]
    asked_for = {name for name, one in services.items() if one.get("profiles") == ["monitoring"]}
    assert asked_for == {"prometheus", "grafana"}
    for name in asked_for:
        assert re.fullmatch(
            r"\$\{DEPLOY_\w+_IMAGE:-[\w/]+:v?\d+\.\d+\.\d+\}", services[name]["image"]
        )
        mounts = [one.split(":")[0] for one in services[name]["volumes"]]
        files = [one for one in mounts if one.startswith("./")]
        assert files
        assert all((ROOT / one).exists() for one in files)
    assert "ports" not in services["prometheus"]
    scraped = yaml.safe_load((MONITORING / "prometheus.yml").read_text())["scrape_configs"][0]
    assert scraped["dns_sd_configs"][0]["names"] == ["assay"]
    assert scraped["authorization"]["credentials_file"] in services["prometheus"]["entrypoint"][2]
    assert set(services["prometheus"]["networks"]) & set(services["assay"]["networks"])
