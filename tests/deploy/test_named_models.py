"""Tests that the models which files below deploy/ name are packaged, in the version served."""

import re
from collections.abc import Iterable, Iterator

import pytest
from support.paths import ROOT

from assay_models.repository import ModelNotFound, ModelRepository, embedded_root

SETTING = re.compile(r"ASSAY_MODELS[\"']?\s*[:=]\s*[\"']?([^\s\"'#]+)")
VARIABLE = re.compile(r"name: ASSAY_MODELS,? value: [\"']?([^\s\"'#}]+)")
CARD = re.compile(r"^ +([a-z0-9][a-z0-9._-]*)/[0-9]+: \|", re.MULTILINE)
KINDS = {".yaml", ".yml", ".md", ".py", ".txt", ".tpl"}


def named(text: str) -> Iterator[str]:
    """Yield the models of each ASSAY_MODELS, but those whose card the text itself holds."""
    lists = [*SETTING.findall(text), *VARIABLE.findall(text)]
    yield from {name for names in lists for name in names.split(",")} - {*CARD.findall(text)}


def faults(names: Iterable[str]) -> Iterator[str]:
    """Yield what is wrong with models: none of the name, or not the version that it stands for."""
    repository = ModelRepository([embedded_root()])
    for name in names:
        try:
            entry = repository.find(name)
        except ModelNotFound as error:
            yield str(error)
        else:
            if entry != repository.find(entry.card.name):
                yield f"{name} is not the default version"


def test_files_of_the_deployment_name_packaged_models_of_the_default_version() -> None:
    files = [path for path in (ROOT / "deploy").rglob("*") if path.suffix in KINDS]
    names = {str(path.relative_to(ROOT)): [*named(path.read_text())] for path in files}
    assert {"deploy/ray/serve.yaml", "deploy/ray/rayservice.yaml"} <= {f for f in names if names[f]}
    assert {file: list(faults(given)) for file, given in names.items() if [*faults(given)]} == {}


@pytest.mark.parametrize(
    "text",
    [
        "ASSAY_MODELS: code@1",
        "ASSAY_MODELS=nli,none assay serve",
        '{name: ASSAY_MODELS, value: "none@2"}',
        "settings:\n  ASSAY_MODELS: my-rm\nmodels:\n  cards:\n    other/1: |",
    ],
)
def test_a_model_that_is_not_packaged_is_found(text: str) -> None:
    assert len(list(faults(named(text)))) == 1
