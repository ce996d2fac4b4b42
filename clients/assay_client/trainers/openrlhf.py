"""OpenRLHF: a file with a `reward_func`.

Checked against the source of OpenRLHF 0.11.2 (utils/agent.py).

    # reward.py, named by --reward.remote_url reward.py
    from assay_client.trainers.openrlhf import reward_func

It is configured by environment variables (`ASSAY_URL`, `ASSAY_REWARD_MODEL`,
`ASSAY_REWARD_ON_FAILURE`, …). The URL of the server itself (`/compat/openrlhf/{model}`) needs
no file, and parses templates better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from assay_client._transport.zip import zip_strict
from assay_client.trainers._items import END_TOKENS, label_fields, strip_end_tokens
from assay_client.trainers._rewards import SyncReward, refuse_all_but_raise, shared_reward


class _Reward(SyncReward):
    unsupported_on_failure: ClassVar[Mapping[str, str]] = refuse_all_but_raise(
        "OpenRLHF makes a tensor of every reward, and a sample without one ends the run later"
    )


def reward_func(
    queries: Sequence[str], prompts: Sequence[str], labels: Sequence[Any], **_: Any
) -> dict[str, Any]:
    """Return the rewards of some samples; OpenRLHF passes a single sample, from threads.

    Args:
        queries: prompt and response as one text, with control tokens.
        prompts: the prompts alone.
        labels: of the rows; `fields` may name the fields of a label that is an object.
        **_: not read.

    Returns:
        `rewards` and `scores`, which are the same, and `extra_logs`.

    Raises:
        AssayError: there is no score. OpenRLHF logs it at level INFO, and the run ends when it
            needs the reward.
        ValueError: a query does not begin with its prompt.
    """
    reward = shared_reward(_Reward)
    rows = zip_strict(queries, prompts, labels)
    scores = reward.scores([reward.item(_sources(*row)) for row in rows])
    return {"rewards": scores, "scores": scores, "extra_logs": {}}


def _sources(query: str, prompt: str, label: Any) -> dict[str, Any]:
    if not query.startswith(prompt):
        raise ValueError(
            "a query does not begin with its prompt, so that its response is unknown; name "
            "the server's own route instead: --reward.remote_url http://HOST/compat/openrlhf/MODEL"
        )
    response = strip_end_tokens(query[len(prompt) :], END_TOKENS)
    return {**label_fields(label), "label": label, "prompt": prompt, "response": response}
