"""Gradient regularisation (arXiv 2602.18037) for a trainer: it needs no further rewards.

torch is imported by the first call, not by this package.
"""

from assay_client.regularisation.gold import GoldResponse
from assay_client.regularisation.gradients import (
    PUBLISHED_EXCLUDED,
    GradientRegulariser,
    GradientReport,
)
from assay_client.regularisation.trl import (
    GradientRegularisationMixin,
    copy_policy_to_reference,
)

__all__ = [
    "PUBLISHED_EXCLUDED",
    "GoldResponse",
    "GradientRegularisationMixin",
    "GradientRegulariser",
    "GradientReport",
    "copy_policy_to_reference",
]
