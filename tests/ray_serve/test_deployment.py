"""The deployment and its configuration file, without a cluster."""

from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from support.paths import ROOT

from assay.app import create_app
from assay.lifecycle.table import ModelTable
from assay.settings import Settings

CONFIGURATION = ROOT / "deploy/ray/serve.yaml"


def application() -> Any:
    (found,) = yaml.safe_load(CONFIGURATION.read_text(encoding="utf-8"))["applications"]
    return found


def test_configuration_names_only_settings_that_exist() -> None:
    variables = application()["runtime_env"]["env_vars"]
    assert variables
    assert {name.removeprefix("ASSAY_").lower() for name in variables} <= set(Settings.model_fields)


def test_configuration_is_one_of_serve() -> None:
    schema = pytest.importorskip("ray.serve.schema", reason="needs Ray: make .venv/ray")
    read = schema.ServeDeploySchema.model_validate(yaml.safe_load(CONFIGURATION.read_text()))
    assert [each.import_path for each in read.applications] == ["assay_ray:app"]


def test_configuration_and_deployment_scale_alike() -> None:
    pytest.importorskip("ray.serve", reason="needs Ray: make .venv/ray")
    from assay_ray import Assay

    (deployment,) = application()["deployments"]
    options: Any = Assay
    assert deployment["name"] == options.name
    own = options._deployment_config.autoscaling_config.model_dump()
    policy = deployment["autoscaling_config"].pop("policy")
    assert own["policy"]["policy_function"] == policy["policy_function"]
    assert {name: own[name] for name in deployment["autoscaling_config"]} == deployment[
        "autoscaling_config"
    ]


def test_a_replica_reports_the_tokens_that_the_gauge_of_scaling_has(
    reference_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray.serve", reason="needs Ray: pip install 'assay[ray]'")
    from assay_ray import Assay

    monkeypatch.setattr(ModelTable, "scaling_tokens", lambda _: 7)
    deployment: Any = Assay
    replica = SimpleNamespace(server=create_app(reference_settings))
    reported = deployment.func_or_class.record_autoscaling_stats(replica)
    assert reported == {"queue_tokens": 7}
