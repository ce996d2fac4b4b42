"""Marks of tests for nightly runs; `NIGHTLY=1 make test-all` includes them."""

import os

import pytest

NIGHTLY = os.environ.get("NIGHTLY") == "1"

only_nightly = pytest.mark.skipif(
    not NIGHTLY, reason="takes long: `NIGHTLY=1 make test-all` runs it"
)
