"""Advantages of grouped rewards, and the figures of a policy's tokens that they need.

All of it runs in the trainer, on numbers that the trainer has: no call goes to a server. Rewards
may be lists, arrays of NumPy or tensors of torch; neither library is imported. None and NaN both
mean that there is no reward.
"""

from assay_client.advantages.channels import channel_columns, replace_null
from assay_client.advantages.groups import (
    AdvantageInfo,
    delta_advantages,
    gdpo_advantages,
    two_step_advantages,
)
from assay_client.advantages.tokens import kl_cov_select, self_certainty_from_logits

__all__ = [
    "AdvantageInfo",
    "channel_columns",
    "delta_advantages",
    "gdpo_advantages",
    "kl_cov_select",
    "replace_null",
    "self_certainty_from_logits",
    "two_step_advantages",
]
