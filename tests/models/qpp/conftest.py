"""Fixtures of the embedded model of the family `video_qpp`."""

from typing import Any

import pytest

from assay_models.registry import Runtime, family_of
from assay_models.repository import ModelFiles, ModelRepository, embedded_root


@pytest.fixture(scope="module")
def entry() -> Any:
    return ModelRepository([embedded_root()]).find("video-qpp@2")


@pytest.fixture(scope="module")
def files(entry: Any) -> ModelFiles:
    return ModelRepository([embedded_root()]).locate(entry)


@pytest.fixture(scope="module")
def model(entry: Any, files: ModelFiles) -> Any:
    return family_of(entry.card).load(entry.card, files, Runtime())
