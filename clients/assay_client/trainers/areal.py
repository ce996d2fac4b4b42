"""AReaL: the `reward_fn` of a workflow.

Checked against the source of AReaL 1.0.4 (api/reward_api.py).

    workflow_kwargs = {"reward_fn": "assay_client.trainers.areal.reward", ...}

It is configured by environment variables, or is an object:
`Reward("code@2", on_failure="raise")`. AReaL calls it in a pool of processes, waits 15 seconds,
tries four times, and trains on **0** if the last of them was too slow. So a call here ends after
12 seconds, with an error, which AReaL raises.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from assay_client.trainers._items import END_TOKENS, strip_end_tokens, to_messages
from assay_client.trainers._rewards import SyncReward, refuse_all_but_raise, shared_reward

_AREAL_TIMEOUT_SECONDS = 15.0


class Reward(SyncReward):
    """A `reward_fn`. The prompt is the row's `messages` unless `fields` says otherwise.

    Args:
        model: as for `Settings`.
        **settings: as for `Settings`; `timeout` is 12 seconds unless given, and below 15.

    Raises:
        ValueError: as `Settings`, or the timeout is longer than AReaL's.
    """

    unsupported_on_failure: ClassVar[Mapping[str, str]] = refuse_all_but_raise(
        "AReaL adds rewards up as numbers and has no place for a missing one"
    )
    fields: ClassVar[Mapping[str, str]] = {"prompt": "messages", "response": "response"}
    defaults: ClassVar[Mapping[str, Any]] = {"timeout": 12.0}

    def __init__(self, model: str | None = None, **settings: Any) -> None:
        super().__init__(model, **settings)
        if self.settings.timeout >= _AREAL_TIMEOUT_SECONDS:
            raise ValueError(
                "timeout must be below 15 seconds: after that AReaL takes the reward for 0"
            )

    def __call__(
        self,
        prompt: str,
        completions: str,
        prompt_ids: Sequence[int],
        completion_ids: Sequence[int],
        **data: Any,
    ) -> float:
        """Return the reward of one completion.

        Args:
            prompt: as the policy's template rendered it.
            completions: a single completion with its control tokens; end tokens are removed.
            prompt_ids: not read.
            completion_ids: not read.
            **data: the columns of the row.

        Raises:
            AssayError: there is no score.
        """
        response = strip_end_tokens(completions, END_TOKENS)
        sources = {**data, "prompt": prompt, "response": response}
        if "messages" in data:
            sources["messages"] = to_messages(data["messages"])
        return self.score_sample(sources)


def reward(
    prompt: str,
    completions: str,
    prompt_ids: Sequence[int],
    completion_ids: Sequence[int],
    **data: Any,
) -> float:
    """Return the reward of one completion, set by environment variables; see `Reward`."""
    return shared_reward(Reward)(prompt, completions, prompt_ids, completion_ids, **data)
