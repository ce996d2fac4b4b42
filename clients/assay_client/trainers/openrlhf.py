"""OpenRLHF: a file with a `reward_func`. Read from OpenRLHF 0.11.2 (utils/agent.py).

    # reward.py, named by --reward.remote_url reward.py
    from assay_client.trainers.openrlhf import reward_func

It is told by the environment (`ASSAY_URL`, `ASSAY_REWARD_MODEL`, `ASSAY_REWARD_ON_FAILURE`, …). The
URL of the server itself (`/compat/openrlhf/{model}`) needs no file, and reads templates better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from assay_client._transport.zip import zipped
from assay_client.trainers._items import END_TOKENS, held_against, without_ends
from assay_client.trainers._rewards import SyncReward, only_raise, reward_of


class _Reward(SyncReward):
    refused: ClassVar[Mapping[str, str]] = only_raise(
        "OpenRLHF makes a tensor of every reward, and a sample without one ends the run later"
    )


def reward_func(
    queries: Sequence[str], prompts: Sequence[str], labels: Sequence[Any], **_: Any
) -> dict[str, Any]:
    """The rewards of some samples; OpenRLHF calls it with one at a time, from threads.

    Args:
        queries: prompt and response as one text, control tokens and all.
        prompts: the prompts alone.
        labels: of the rows; `fields` may name the fields of one that is an object.
        **_: nothing that is read.

    Returns:
        `rewards` and `scores`, which are the same, and `extra_logs`.

    Raises:
        AssayError: there is no score. OpenRLHF logs it at level INFO, and the run ends when it
            needs the reward.
        ValueError: a query does not begin with its prompt.
    """
    reward = reward_of(_Reward)
    rows = zipped(queries, prompts, labels)
    scores = reward.scores([reward.item(_sources(*row)) for row in rows])
    return {"rewards": scores, "scores": scores, "extra_logs": {}}


def _sources(query: str, prompt: str, label: Any) -> dict[str, Any]:
    if not query.startswith(prompt):
        raise ValueError(
            "a query does not begin with its prompt, so that its response cannot be told; name "
            "the server's own route instead: --reward.remote_url http://HOST/compat/openrlhf/MODEL"
        )
    response = without_ends(query[len(prompt) :], END_TOKENS)
    return {**held_against(label), "label": label, "prompt": prompt, "response": response}
