"""What evidence may say of a claim, and what each counts for."""

from collections.abc import Mapping
from typing import Literal

Label = Literal["entailment", "neutral", "contradiction", "not_entailment"]
LABELS: tuple[Label, ...] = ("entailment", "neutral", "contradiction")
WEIGHTS: Mapping[Label, float] = {
    "entailment": 1.0,
    "neutral": 0.0,
    "contradiction": -1.5,
    "not_entailment": 0.0,
}
"""s of each label in phi (arXiv 2605.25988); with two labels nothing is contradicted."""
