"""Channels of one model as the rewards of TRL, verl and NeMo-RL."""

import pickle
from types import SimpleNamespace
from typing import Any

import pytest
from support.client_replies import score_reply

from assay_client import Client, ItemFailedError
from assay_client.advantages import channel_columns, gdpo_advantages, replace_null
from assay_client.advantages.trl import ChannelReward, channel_rewards
from assay_client.trainers import _rewards, verl

FIELDS = {"value": "value", "response": "response"}
ROW: dict[str, Any] = {"data_source": "d", "solution_str": "x", "ground_truth": None}
CHANNELS = ["correct", "length"]


@pytest.fixture
def server(server: Any, canned: Any) -> Any:
    """A server whose model has two channels.

    `length` is null where the score is below 0.5; an item fails from the value `fail_from` on.
    """

    def answer(received: Any) -> Any:
        items = [
            item if item.get("value", 0) < server.fail_from else {}
            for item in received.body["items"]
        ]
        reply = score_reply(items)
        for row in reply["results"]:
            score = row["score"]
            length = None if score is None or score < 0.5 else 1.0 - score
            row["channels"] = {"correct": score, "length": length}
        return canned.json(reply)

    server.fail_from = 2.0
    server.always = answer
    return server


def call_all(functions: list[ChannelReward], values: list[Any], step: int) -> list[Any]:
    """Call each function with the batch, as TRL does."""
    texts = ["p"] * len(values)
    state = SimpleNamespace(global_step=step)
    return [
        function(prompts=texts, completions=texts, value=values, trainer_state=state)
        for function in functions
    ]


def make(server: Any, **settings: Any) -> list[ChannelReward]:
    given = {"on_failure": "raise", "url": server.url, "fields": FIELDS, **settings}
    return channel_rewards(CHANNELS, "code@1", **given)


def test_channel_functions_share_one_request_for_a_batch(server: Any) -> None:
    functions = make(server, run="exp")
    assert [function.__name__ for function in functions] == [
        "assay_code_v1_correct",
        "assay_code_v1_length",
    ]
    assert call_all(functions, [0.25, 0.75], step=1) == [[0.25, 0.75], [None, 0.25]]
    assert len(server.received) == 1
    call_all(functions, [0.25, 0.75], step=1)  # the same batch again is another call
    call_all(functions, [0.25, 0.75], step=2)
    assert len(server.received) == 3
    copies = pickle.loads(pickle.dumps(functions))
    assert call_all(copies, [0.5], step=3) == [[0.5], [0.5]]
    for source in (functions[0].source, copies[0].source):
        source.close()


@pytest.mark.parametrize("policy", ["none", "skip"])
def test_a_failed_item_is_null_in_every_channel(server: Any, policy: str) -> None:
    server.fail_from = 0.9
    functions = make(server, on_failure=policy)
    alone = None if policy == "skip" else 0.75
    expected = [[None, alone], [None, None if policy == "skip" else 0.25]]
    assert call_all(functions, [1.0, 0.75], step=1) == expected
    assert functions[1].source.failures.reasons == {"input_too_long": 1}
    functions[0].source.close()


def test_a_failed_item_raises_where_the_policy_says_so(server: Any) -> None:
    server.fail_from = 0.9
    functions = make(server)
    with pytest.raises(ItemFailedError):
        call_all(functions, [1.0, 0.75], step=1)
    functions[0].source.close()


def test_a_missing_channel_is_named(server: Any) -> None:
    with Client(server.url) as client:
        reply = client.score("code", [{"value": 0.5}])
    with pytest.raises(ValueError, match=r"no channel 'style'; it has: score, correct, length"):
        channel_columns(reply, ["style"])


def test_nemo_rl_reads_columns_with_its_prefix(server: Any) -> None:
    with Client(server.url) as client:
        reply = client.score("code", [{"value": 0.25}, {"value": 0.75}, {}], on_error="none")
    columns = channel_columns(reply, CHANNELS, prefix="reward/")
    assert columns == {"reward/correct": [0.25, 0.75, None], "reward/length": [None, 0.25, None]}
    filled = replace_null(columns, {"reward/correct": 0.0, "reward/length": 0.5})
    assert filled["reward/length"] == [0.5, 0.25, 0.5]
    assert filled["reward/length_null"] == [1.0, 0.0, 1.0]
    rows = list(zip(*columns.values(), strict=True))
    advantages, info = gdpo_advantages(rows, [0, 0, 0])
    assert advantages[2] == 0.0
    assert info.n_null == (1, 2)


def test_a_null_without_a_number_for_it_is_refused() -> None:
    with pytest.raises(ValueError, match="length is null"):
        replace_null({"length": [None]}, {})
    with pytest.raises(ValueError, match="'style', which is no column"):
        replace_null({"length": [1.0]}, {"style": 0.0})


async def test_verl_gets_channels_without_null(server: Any, set_environment: Any) -> None:
    settings: dict[str, Any] = {
        "model": "code@1",
        "on_failure": "raise",
        "url": server.url,
        "fields": FIELDS,
    }
    rows: list[dict[str, Any]] = [{**ROW, "extra_info": {"value": value}} for value in (0.25, 0.75)]
    channels: dict[str, Any] = {"channels": CHANNELS, "null_channels": {"length": 0.5}}
    low, high = [verl.compute_score_sync(**row, **settings, **channels) for row in rows]
    assert low == {"score": 0.25, "correct": 0.25, "length": 0.5, "length_null": 1.0}
    assert high == {"score": 0.75, "correct": 0.75, "length": 0.25, "length_null": 0.0}
    assert await verl.compute_score(**rows[1], **settings, **channels) == high
    batch = verl.compute_score_batch(
        ["d"], ["x"], [None], [{"value": 0.75}], **settings, channels=["correct"]
    )
    assert batch == [{"score": 0.75, "correct": 0.75}]
    with pytest.raises(ValueError, match="length is null"):
        verl.compute_score_sync(**rows[0], **settings, channels=CHANNELS)
    with pytest.raises(ValueError, match="no column"):
        verl.compute_score_sync(**rows[0], **settings, null_channels={"length": 0.5})
    for reward in _rewards.SHARED_REWARDS.values():
        if isinstance(reward, _rewards.AsyncReward):
            await reward.aclose()
