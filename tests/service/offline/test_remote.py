"""Options sent to another server equal the local ones."""

import pytest

from assay.api.schemas import OptionsBody, PhiWeights
from assay.api.v1 import parse_options
from assay.offline.remote import options_body
from assay_models.base import Options
from assay_models.families.nli.claims import WEIGHTS


@pytest.mark.parametrize(
    "options",
    [
        Options(),
        Options("middle", raw=True),
        Options(numbers=(("min_confidence", 0.7),)),
        Options(numbers=(("min_confidence", 0.0), ("weights.contradiction", -2.0))),
    ],
)
def test_options_are_sent_unchanged(options: Options) -> None:
    assert parse_options(OptionsBody.model_validate(options_body(options))) == options


def test_a_request_may_set_the_weight_of_every_label() -> None:
    assert set(PhiWeights.model_fields) == set(WEIGHTS)
