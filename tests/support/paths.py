"""Paths that tests read: the checkout, its docs, and the evaluation data."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
DATA = Path(os.environ.get("DATA", ROOT.parent / "shared" / "data"))
"""Evaluation data; tests that need it skip where it is absent."""
