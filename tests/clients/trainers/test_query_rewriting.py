"""The reward of rewrites, called as TRL 1.16.0 calls it (GRPOTrainer._calculate_rewards)."""

import pickle
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from support.servers import listening

from assay.settings import Settings
from assay_client import Client, ItemFailedError, ProtocolError
from assay_client.rewards.query_rewriting import DriftPenalty
from assay_client.trainers.query_rewriting import Reward

NO_PENALTY = DriftPenalty(similarity=0, length=0, novelty=0)
PROMPT = "Rewrite the query so that a video is found by it: a man cooks"
ORIGINAL = "a man cooks"
COMPLETIONS = (
    "Query: a man in a white apron cooks pasta",
    "a man cooks",
    'Sure!\n"an orchestra in a green hall plays for two children"',
)
REWRITES = (
    "a man in a white apron cooks pasta",
    "a man cooks",
    "an orchestra in a green hall plays for two children",
)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with listening(Settings(models=("video-qpp@2",))) as url:
        yield url


@pytest.fixture
def make(close_later: Any) -> Callable[..., Reward]:
    def make_one(url: str, **settings: Any) -> Reward:
        given = {"on_failure": "raise", "collection": "msrvtt", "max_retries": 0, **settings}
        reward: Reward = close_later(Reward("video-qpp@2", url=url, **given))
        return reward

    return make_one


def rewards(reward: Reward, completions: Any, **columns: Any) -> tuple[Any, dict[str, float]]:
    logged: dict[str, float] = {}
    arguments = {
        "original": [ORIGINAL] * len(completions),
        "trainer_state": SimpleNamespace(global_step=3),
        "log_metric": logged.__setitem__,
        **columns,
    }
    found = reward(prompts=[PROMPT] * len(completions), completions=list(completions), **arguments)
    return found, logged


@pytest.mark.weights
def test_the_reward_is_the_score_less_the_drift_penalty(url: str, make: Any) -> None:
    penalty = DriftPenalty(similarity=2, length=0.3, novelty=0.4)
    found, logged = rewards(make(url, drift_penalty=penalty), COMPLETIONS)
    items = [{"query": text, "original": ORIGINAL, "collection": "msrvtt"} for text in REWRITES]
    with Client(url) as client:
        results = client.score("video-qpp@2", items).results
    expected = [(row.score or 0.0) - penalty.compute(row.channels) for row in results]
    assert found == pytest.approx(expected, abs=1e-5)
    assert logged["assay/score"] == pytest.approx(sum(row.score or 0 for row in results) / 3)
    for name in ("similarity", "length_change", "novelty"):
        mean = sum(row.channels[name] or 0.0 for row in results) / 3
        assert logged[f"assay/{name}"] == pytest.approx(mean, abs=1e-5)
    assert (logged["assay/empty"], logged["assay/failed"]) == (0, 0)


@pytest.mark.weights
def test_the_drift_penalty_prevents_a_change_of_meaning(url: str, make: Any) -> None:
    without, _ = rewards(make(url, drift_penalty=NO_PENALTY), COMPLETIONS)
    penalised, _ = rewards(make(url), COMPLETIONS)
    assert without[2] > without[1], "alone, the score prefers a detailed query about something else"
    assert penalised[2] < penalised[1]
    assert penalised[1] == pytest.approx(without[1], abs=1e-5)


@pytest.mark.weights
def test_completions_may_be_messages_and_collection_a_column(url: str, make: Any) -> None:
    fields = {"query": "response", "original": "source", "collection": "of"}
    reward = make(url, collection=None, fields=fields)
    messages = [[{"role": "assistant", "content": text}] for text in COMPLETIONS]
    columns = {"source": [ORIGINAL] * 3, "of": ["coco", "vatex", "msrvtt"], "original": None}
    found, _ = rewards(reward, messages, **columns)
    single = [
        rewards(make(url, collection=name), [text])[0][0]
        for name, text in zip(columns["of"] or (), COMPLETIONS, strict=True)
    ]
    assert found == pytest.approx(single, abs=1e-5)


@pytest.mark.weights
def test_a_completion_without_a_rewrite_gets_the_empty_reward(url: str, make: Any) -> None:
    completions = [COMPLETIONS[0], "\n", "Query:"]
    (first, *others), logged = rewards(make(url, empty=-1.0), completions)
    assert others == [-1.0, -1.0]
    assert logged["assay/empty"] == pytest.approx(2 / 3)
    assert logged["assay/failed"] == 0
    assert rewards(make(url, empty=-1.0), ["", ""])[0] == [-1.0, -1.0]
    found, logged = rewards(make(url, on_failure="none"), completions)
    assert found == [pytest.approx(first, abs=1e-5), None, None]
    assert logged["assay/failed"] == pytest.approx(2 / 3)
    assert rewards(make(url, on_failure="skip"), completions)[0] == [None, None, None]
    with pytest.raises(ItemFailedError):
        rewards(make(url), completions)


@pytest.mark.weights
def test_the_reward_can_be_pickled_with_its_drift_penalty(
    url: str, make: Any, close_later: Any
) -> None:
    reward = make(url, drift_penalty=DriftPenalty(novelty=0.9), empty=-2.0)
    copy = close_later(pickle.loads(pickle.dumps(reward)))
    assert rewards(copy, [*COMPLETIONS, ""]) == rewards(reward, [*COMPLETIONS, ""])


def test_rewrites_are_sent_with_their_original(server: Any, make: Any, canned: Any) -> None:
    server.always = lambda received: canned.json(
        canned.score_reply([{"value": 1.0}] * 3, received.body["model"])
    )
    reward = make(server.url, drift_penalty=NO_PENALTY, system="gram", run="exp")
    assert rewards(reward, COMPLETIONS)[0] == [1.0, 1.0, 1.0]
    body = server.received[0].body
    assert body["run"] == {"id": "exp", "split": "train", "step": 3}
    for item, text in zip(body["items"], REWRITES, strict=True):
        group = item.pop("group")
        assert item == {
            "query": text,
            "original": ORIGINAL,
            "collection": "msrvtt",
            "system": "gram",
        }
        assert group == reward.item({"response": text, "original": ORIGINAL}, group)["group"]


def test_a_model_without_drift_channels_raises_a_protocol_error(
    server: Any, make: Any, canned: Any
) -> None:
    server.always = lambda received: canned.json(
        canned.score_reply([{"value": 1.0}] * 3, received.body["model"])
    )
    with pytest.raises(ProtocolError, match="similarity"):
        rewards(make(server.url, on_failure="none"), COMPLETIONS)


def test_the_policy_applies_to_a_server_error(server: Any, make: Any, canned: Any) -> None:
    server.always = canned.problem(500)
    found, logged = rewards(make(server.url, on_failure="none", empty=-1.0), [*COMPLETIONS, ""])
    assert found == [None, None, None, -1.0]
    assert logged["assay/failed"] == pytest.approx(3 / 4)


def test_a_missing_column_is_named(server: Any, make: Any) -> None:
    with pytest.raises(ValueError, match="original"):
        rewards(make(server.url, on_failure="none"), COMPLETIONS, original=None)
    assert server.received == []


def test_fields_must_have_the_query_and_the_original(make: Any) -> None:
    with pytest.raises(ValueError, match="`original`"):
        make("http://127.0.0.1:1", fields={"query": "response"})
