"""Tests that the deployment files agree with code and documentation; no container engine."""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase
from support.paths import ROOT

from assay.metrics import Metrics
from assay.settings import Settings, read_settings, variable_name
from assay_models.families.code_exec.model import CodeExecOptions

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


def test_compose_waits_longer_for_a_stop_than_draining_takes(server: dict[str, Any]) -> None:
    grace = re.fullmatch(r"\$\{DEPLOY_STOP:-(\d+)s\}", server["stop_grace_period"])
    assert grace is not None
    requests_then_models = 2 * Settings().drain_timeout
    assert int(grace[1]) > requests_then_models


def test_runs_outlive_the_container(server: dict[str, Any]) -> None:
    image = (ROOT / "Dockerfile").read_text()
    (state,) = re.findall(r"XDG_STATE_HOME=(\S+)", image)
    runs = read_settings({"XDG_STATE_HOME": state, "HOME": "/tmp"}).runs
    assert isinstance(runs, Path)
    volumes = dict(volume.split(":") for volume in server["volumes"])
    assert str(runs.parent) in volumes.values()
    assert re.search(rf"install -d -o assay -g assay .*{runs.parent}\b", image)
    assert not any(runs.is_relative_to(folder) for folder in server["tmpfs"])


def test_the_memory_limit_holds_what_the_server_is_known_to_take(server: dict[str, Any]) -> None:
    limit = re.fullmatch(r"\$\{DEPLOY_MEMORY:-(\d+)g\}", server["mem_limit"])
    page = (ROOT / "docs/how-to/deploy.md").read_text()
    (peak,) = re.findall(r"GiB under mixed load, with peaks to (\d+\.\d+)", page)
    programs = 4 * CodeExecOptions().memory_mb / 1024
    assert limit is not None
    assert int(limit[1]) > float(peak) + programs


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


@pytest.mark.parametrize("file", ["pyproject.toml", "clients/pyproject.toml"])
def test_every_package_of_the_wheels_is_in_the_build_context(file: str) -> None:
    wheel = tomllib.loads((ROOT / file).read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    folder = (ROOT / file).parent.relative_to(ROOT)
    included = [*wheel["packages"], *wheel.get("force-include", ())]
    context = (ROOT / ".dockerignore").read_text().splitlines()
    assert [name for name in included if f"!{(folder / name).as_posix()}" not in context] == []


def series() -> set[str]:
    """Return every series name that a query may use."""
    registry = CollectorRegistry()
    Metrics(registry)
    suffixes = {
        "counter": ("_total",),
        "gauge": ("",),
        "histogram": ("_bucket", "_sum", "_count"),
    }
    return {
        metric.name + suffix
        for metric in registry.collect()
        for suffix in suffixes.get(metric.type, ())
    }


def labels_of(name: str) -> set[str]:
    metrics = Metrics(CollectorRegistry())
    base = re.sub(r"_(total|bucket|sum|count)$", "", name)
    (collector,) = {
        collector
        for collector, names in metrics.registry._collector_to_names.items()
        if base in names or name in names
    }
    assert isinstance(collector, MetricWrapperBase)
    return {*collector._labelnames, "le", "instance"}  # Prometheus adds `instance`


def queries() -> Iterator[str]:
    for panel in DASHBOARD["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))
    yield from (variable["query"]["query"] for variable in DASHBOARD["templating"]["list"])
    for group in yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]:
        yield from (rule["expr"] for rule in group["rules"])


@pytest.mark.parametrize("query", sorted(set(queries())))
def test_every_series_and_label_of_a_query_exists(query: str) -> None:
    names = set(re.findall(r"assay_\w+", query))
    assert names
    assert names <= series()
    known = set.union(*map(labels_of, names))
    matched = re.findall(r"(\w+)\s*=~?\"", query)
    grouped = [name for part in re.findall(r"by \(([^)]*)\)", query) for name in part.split(", ")]
    listed = re.findall(r"label_values\(\w+, (\w+)\)", query)
    assert {*matched, *grouped, *listed} <= known


def test_the_dashboard_has_the_structure_that_grafana_loads() -> None:
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


def test_no_two_panels_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for place in (panel["gridPos"] for panel in DASHBOARD["panels"]):
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        taken |= cells


def test_monitoring_services_are_optional_pinned_and_mount_existing_files() -> None:
    composed = yaml.safe_load((ROOT / "compose.yaml").read_text())
    services = composed["services"]
    optional = {
        name for name, service in services.items() if service.get("profiles") == ["monitoring"]
    }
    assert optional == {"prometheus", "grafana"}
    for name in optional:
        assert re.fullmatch(
            r"\$\{DEPLOY_\w+_IMAGE:-[\w/]+:v?\d+\.\d+\.\d+@sha256:[0-9a-f]{64}\}",
            services[name]["image"],
        )
        mounts = [volume.split(":")[0] for volume in services[name]["volumes"]]
        files = [mount for mount in mounts if mount.startswith("./")]
        assert files
        assert all((ROOT / file).exists() for file in files)
    assert "ports" not in services["prometheus"]
    scraped = yaml.safe_load((MONITORING / "prometheus.yml").read_text())["scrape_configs"][0]
    assert scraped["dns_sd_configs"][0]["names"] == ["assay"]
    assert scraped["authorization"]["credentials_file"] in services["prometheus"]["entrypoint"][2]
    assert set(services["prometheus"]["networks"]) & set(services["assay"]["networks"])
