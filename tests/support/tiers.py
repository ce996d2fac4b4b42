"""What takes too long for every change: `NIGHTLY=1 make test` runs it as well."""

import os

import pytest

NIGHTLY = os.environ.get("NIGHTLY") == "1"

only_nightly = pytest.mark.skipif(not NIGHTLY, reason="takes long: `NIGHTLY=1 make test` runs it")
