"""Tests of the chart's manifests: schemas of three Kubernetes releases, policy, what values do."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import helm_python as helm
import pytest
import yaml
from support.kubernetes.policy import plain_environment, settings_of, violations
from support.kubernetes.releases import (
    CASES,
    VERSIONS,
    WITHOUT_HELM,
    release,
    schema_errors,
    server_of,
)
from support.paths import ROOT
from support.servers import listening

from assay import __version__
from assay.api.keys import ApiKeys
from assay.settings import Settings, variable_name
from assay_models.repository import ModelRepository, embedded_root
from deploy.kubernetes.render import CHART, OF_THE_CHART, definitions, generated, render

ALL = [*CASES, *WITHOUT_HELM]


@pytest.mark.parametrize("case", CASES)
def test_lint_of_the_chart_finds_no_error_and_no_warning(case: str) -> None:
    report = helm.lint(CHART, CASES[case], strict=True)
    assert report["errors"] == []
    assert [message for message in report["messages"] if message["severity"] > 1] == []


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("case", ALL)
def test_manifests_fit_the_schemas_of_a_kubernetes_release(case: str, version: str) -> None:
    documents = release(case)
    assert documents
    assert [error for document in documents for error in schema_errors(document, version)] == []


@pytest.mark.parametrize("case", ALL)
def test_manifests_keep_the_policy(case: str) -> None:
    assert violations(release(case)) == []


@pytest.mark.parametrize(("file", "text"), [(file, text) for file, text in generated()])
def test_a_generated_file_is_fresh(file: Path, text: str) -> None:
    assert file.read_text(encoding="utf-8") == text, "run `make docs`"


def test_every_setting_is_a_value_of_the_chart() -> None:
    schemas = definitions()
    names = [*schemas["settings"]["properties"], *schemas["secretSettings"]["properties"]]
    of_the_server = [name for name in names if name != "HF_TOKEN"]
    fields = set(Settings.model_fields) - OF_THE_CHART
    assert sorted(of_the_server) == sorted(variable_name(field) for field in fields)
    assert set(Settings.model_fields) >= OF_THE_CHART


def test_an_object_of_the_values_admits_no_unknown_name() -> None:
    """Check that objects with named properties are closed, but Kubernetes's own."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert list(_open_objects(schema, "$")) == [
        "$.definitions.resources.requests",
        "$.definitions.resources.limits",
    ]


def _open_objects(schema: dict[str, Any], path: str) -> Any:
    for name in ("properties", "definitions"):
        for key, part in schema.get(name, {}).items():
            if isinstance(part, dict):
                place = f"{path}.{key}" if name == "properties" else f"{path}.definitions.{key}"
                if "properties" in part and part.get("additionalProperties") is not False:
                    yield place
                yield from _open_objects(part, place)


def test_the_values_file_names_every_value() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert set(values) == set(schema["properties"]) - {"global"}


def test_numbers_and_flags_reach_the_server_exactly() -> None:
    given = {
        "ASSAY_MAX_QUEUE_TOKENS": 4_194_304,
        "ASSAY_CACHE_BYTES": 34_359_738_368,
        "ASSAY_TIMEOUT": 0.5,
        "ASSAY_DETERMINISTIC": True,
        "ASSAY_MODELS": "code,nli",
        "ASSAY_DTYPE": "bfloat16",
    }
    settings = settings_of(_container({"settings": given}))
    assert settings.max_queue_tokens == 4_194_304
    assert settings.cache_bytes == 34_359_738_368
    assert (settings.timeout, settings.deterministic) == (0.5, True)
    assert (settings.models, settings.dtype) == (("code", "nli"), "bfloat16")


def test_a_setting_wins_over_what_the_chart_derives() -> None:
    values = {"gpu": {"count": 1}, "settings": {"ASSAY_DTYPE": "float32", "OMP_NUM_THREADS": 1}}
    environment = plain_environment(_container(values))
    assert environment["ASSAY_DTYPE"] == "float32"
    assert environment["OMP_NUM_THREADS"] == "1"
    assert environment["ASSAY_DEVICE"] == "cuda"


def test_the_key_of_an_engine_is_the_file_that_a_card_names() -> None:
    card = 'api_key_file = "/etc/assay/engines/vllm/token"'
    pod = server_of(render({"models": {"cards": {"a/1": card}, "engineKeys": ["vllm"]}}))
    (mount,) = [
        mount for mount in pod["containers"][0]["volumeMounts"] if "engines" in mount["mountPath"]
    ]
    assert mount["mountPath"] == "/etc/assay/engines/vllm"
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == mount["name"]]
    assert volume["secret"] == {"secretName": "vllm", "defaultMode": 0o440}


@pytest.mark.parametrize(
    ("values", "pause", "grace"),
    [
        ({}, 5, 5 + 2 * Settings().drain_timeout + 10),
        ({"settings": {"ASSAY_DRAIN_TIMEOUT": 90}}, 5, 195),
        ({"settings": {"ASSAY_DRAIN_TIMEOUT": 0.25}}, 5, 16),
        ({"settings": {"ASSAY_SHUTDOWN_DELAY": 8}}, None, 78),
        ({"shutdown": {"pauseSeconds": 20}}, 20, 90),
        ({"shutdown": {"graceSeconds": 300}}, 5, 300),
    ],
)
def test_the_grace_period_covers_the_pause_and_twice_the_drain(
    values: dict[str, Any], pause: int | None, grace: int
) -> None:
    pod = server_of(render(values))
    hook = pod["containers"][0].get("lifecycle")
    assert hook == ({"preStop": {"sleep": {"seconds": pause}}} if pause else None)
    assert pod["terminationGracePeriodSeconds"] == grace


def test_other_profiles_reach_the_server_alone() -> None:
    unconfined = {"type": "Unconfined"}
    documents = render({"seccompProfile": unconfined, "appArmorProfile": unconfined})
    errors = [error for document in documents for error in schema_errors(document, VERSIONS[0])]
    assert errors == []
    assert violations(documents) == ["assay: a container has no seccomp profile"]


def test_a_changed_card_replaces_the_pods() -> None:
    annotations = [
        _template({"models": {"cards": {"a/1": text}}})["metadata"]["annotations"]
        for text in ("one", "two", "one")
    ]
    assert annotations[0] == annotations[2] != annotations[1]


def test_the_memory_limit_is_that_of_compose() -> None:
    composed = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert values["resources"]["limits"]["memory"] == "6Gi"
    assert composed["assay"]["mem_limit"] == "${DEPLOY_MEMORY:-6g}"
    assert values["redis"]["bundled"]["image"] in composed["redis"]["image"]


def test_each_file_names_the_version_of_the_package() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == chart["version"] == __version__
    files = [*WITHOUT_HELM.values(), ROOT / "deploy" / "kubernetes" / "kustomization.yaml"]
    tags = [
        re.findall(r"(?:image: assay[a-z-]*:|newTag: )(\S+)", path.read_text()) for path in files
    ]
    assert [set(found) for found in tags] == [{__version__}] * len(files)


def test_no_secret_stands_in_a_manifest() -> None:
    documents = [
        document for case in ("replicas", "everything of a pod") for document in release(case)
    ]
    assert "Secret" not in {document["kind"] for document in documents}
    container = server_of(release("replicas"))["containers"][0]
    plain = plain_environment(container)
    assert plain["ASSAY_API_KEYS_FILE"] == "/etc/assay/keys/keys.toml"
    assert {"ASSAY_API_KEYS", "ASSAY_REDIS_URL", "ASSAY_RUNS", "ASSAY_REDIS_SECRET"}.isdisjoint(
        plain
    )


def test_cards_that_kubernetes_mounts_are_found(tmp_path: Path) -> None:
    """Use links to a folder whose name begins with two dots, as a mounted ConfigMap has."""
    card = (embedded_root() / "reference" / "1" / "card.toml").read_text()
    volumes = server_of(render({"models": {"cards": {"reference/1": card}}}))["volumes"]
    (items,) = [volume["configMap"]["items"] for volume in volumes if "configMap" in volume]
    for item in items:
        file = tmp_path / "..2026" / item["path"]
        file.parent.mkdir(parents=True)
        file.write_text(card)
    (tmp_path / "..data").symlink_to("..2026")
    (tmp_path / "reference").symlink_to("..data/reference")
    assert [card.id for card in ModelRepository([tmp_path]).cards()] == ["reference@1"]


def test_a_replaced_secret_of_keys_is_read_again(tmp_path: Path) -> None:
    """Replace the link to the folder of the files, as happens to a mounted Secret."""
    for folder, key in (("..1", b"first-0123456789abc"), ("..2", b"second-0123456789abc")):
        (tmp_path / folder).mkdir()
        digest = subprocess.run(["sha256sum"], input=key, capture_output=True).stdout.split()[0]
        table = f'[trainer]\nscopes = ["score"]\nsha256 = ["{digest.decode()}"]\n'
        (tmp_path / folder / "keys.toml").write_text(table)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "keys.toml").symlink_to("..data/keys.toml")
    keys = ApiKeys((), tmp_path / "keys.toml")
    assert keys.find(b"first-0123456789abc")
    (tmp_path / "..new").symlink_to("..2")
    (tmp_path / "..new").replace(tmp_path / "..data")
    keys.refresh()
    assert keys.find(b"second-0123456789abc")
    assert not keys.find(b"first-0123456789abc")


def test_the_models_and_cards_of_the_examples_exist(tmp_path: Path) -> None:
    for name, text in CASES["own-models"]["models"]["cards"].items():
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "card.toml").write_text(text)
    repository = ModelRepository([embedded_root(), tmp_path])
    named = [values.get("settings", {}).get("ASSAY_MODELS") for values in CASES.values()]
    assert [repository.find(name).card.name for name in named if name] == [n for n in named if n]


def test_the_test_of_a_release_scores_an_example_and_sees_a_wrong_score(tmp_path: Path) -> None:
    card = (embedded_root() / "reference" / "1" / "card.toml").read_text()
    assert "score = 0.405465" in card
    for score, code in (("0.405465", 0), ("0.505465", 1)):
        folder = tmp_path / score / "reference" / "1"
        folder.mkdir(parents=True)
        (folder / "card.toml").write_text(card.replace("0.405465", score))
        settings = Settings(models=("reference",), repository=(tmp_path / score,), runs="off")
        with listening(settings, loaded=code == 0) as url:
            assert _score_examples(url) == code


def _score_examples(url: str) -> int:
    (pod,) = [document for document in release("defaults") if document["kind"] == "Pod"]
    container = pod["spec"]["containers"][0]
    assert container["command"][:2] == ["python", "-I"]
    command = [sys.executable, *container["command"][1:]]
    return subprocess.run(command, env={**os.environ, "URL": url}, capture_output=True).returncode


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl for kustomize")
def test_kustomize_builds_what_the_chart_renders() -> None:
    built = subprocess.run(
        ["kubectl", "kustomize", ROOT / "deploy" / "kubernetes"],
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    documents = list(yaml.safe_load_all(built))
    assert sorted(map(str, documents)) == sorted(map(str, _sorted(release("kustomize"))))
    assert violations(documents) == []


def _sorted(documents: Any) -> Any:
    return yaml.safe_load(yaml.safe_dump(documents))


def test_ray_serves_what_its_configuration_says() -> None:
    file = ROOT / "deploy" / "ray" / "serve.yaml"
    (document,) = release("KubeRay")
    assert yaml.safe_load(document["spec"]["serveConfigV2"]) == yaml.safe_load(file.read_text())


def _template(values: dict[str, Any]) -> dict[str, Any]:
    (server,) = [
        document
        for document in render(values)
        if document["kind"] == "Deployment" and document["metadata"]["name"] == "assay"
    ]
    return dict(server["spec"]["template"])


def _container(values: dict[str, Any]) -> dict[str, Any]:
    return dict(_template(values)["spec"]["containers"][0])
