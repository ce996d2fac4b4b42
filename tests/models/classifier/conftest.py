"""Classifiers of each architecture, with random weights."""

import pytest
from support.checkpoints import KINDS, Classifiers, build_checkpoint, load_classifier


@pytest.fixture(scope="module")
def classifiers(tmp_path_factory: pytest.TempPathFactory) -> Classifiers:
    built = Classifiers()
    for kind in KINDS:
        folder = build_checkpoint(kind, tmp_path_factory.mktemp(kind), max_tokens=40)
        built[kind] = load_classifier(folder)
    return built
