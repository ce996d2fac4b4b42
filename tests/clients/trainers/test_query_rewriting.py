"""The reward of rewrites, called as TRL 1.16.0 calls it (GRPOTrainer._calculate_rewards)."""

import pickle
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from support.servers import listening

from assay.settings import Settings
from assay_client import Client, ItemFailedError, ProtocolError
from assay_client.rewards.query_rewriting import Guards
from assay_client.trainers.query_rewriting import Reward

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
def make(closing: Any) -> Callable[..., Reward]:
    def make_one(url: str, **settings: Any) -> Reward:
        given = {"on_failure": "raise", "collection": "msrvtt", "max_retries": 0, **settings}
        reward: Reward = closing(Reward("video-qpp@2", url=url, **given))
        return reward

    return make_one


def rewards(reward: Reward, completions: Any, **columns: Any) -> tuple[Any, dict[str, float]]:
    logged: dict[str, float] = {}
    told = {
        "original": [ORIGINAL] * len(completions),
        "trainer_state": SimpleNamespace(global_step=3),
        "log_metric": logged.__setitem__,
        **columns,
    }
    found = reward(prompts=[PROMPT] * len(completions), completions=list(completions), **told)
    return found, logged


@pytest.mark.weights
def test_it_is_the_score_less_what_the_guards_take(url: str, make: Any) -> None:
    guards = Guards(similarity=2, length=0.3, novelty=0.4)
    found, logged = rewards(make(url, guards=guards), COMPLETIONS)
    items = [{"query": text, "original": ORIGINAL, "collection": "msrvtt"} for text in REWRITES]
    with Client(url) as client:
        results = client.score("video-qpp@2", items).results
    expected = [(one.score or 0.0) - guards.penalty(one.channels) for one in results]
    assert found == pytest.approx(expected, abs=1e-5)
    assert logged["assay/score"] == pytest.approx(sum(one.score or 0 for one in results) / 3)
    for name in ("similarity", "length_change", "novelty"):
        mean = sum(one.channels[name] or 0.0 for one in results) / 3
        assert logged[f"assay/{name}"] == pytest.approx(mean, abs=1e-5)
    assert (logged["assay/empty"], logged["assay/failed"]) == (0, 0)


@pytest.mark.weights
def test_what_a_guard_is_for(url: str, make: Any) -> None:
    free, _ = rewards(make(url, guards=Guards(0, 0, 0)), COMPLETIONS)
    held, _ = rewards(make(url), COMPLETIONS)
    assert free[2] > free[1], "alone, the score prefers a detailed query about something else"
    assert held[2] < held[1]
    assert held[1] == pytest.approx(free[1], abs=1e-5)


@pytest.mark.weights
def test_conversations_and_a_column_for_the_collection(url: str, make: Any) -> None:
    fields = {"query": "response", "original": "source", "collection": "of"}
    reward = make(url, collection=None, fields=fields)
    said = [[{"role": "assistant", "content": text}] for text in COMPLETIONS]
    columns = {"source": [ORIGINAL] * 3, "of": ["coco", "vatex", "msrvtt"], "original": None}
    found, _ = rewards(reward, said, **columns)
    apart = [
        rewards(make(url, collection=name), [text])[0][0]
        for name, text in zip(columns["of"] or (), COMPLETIONS, strict=True)
    ]
    assert found == pytest.approx(apart, abs=1e-5)


@pytest.mark.weights
def test_a_completion_without_a_rewrite(url: str, make: Any) -> None:
    said = [COMPLETIONS[0], "\n", "Query:"]
    (first, *others), logged = rewards(make(url, empty=-1.0), said)
    assert others == [-1.0, -1.0]
    assert logged["assay/empty"] == pytest.approx(2 / 3)
    assert logged["assay/failed"] == 0
    assert rewards(make(url, empty=-1.0), ["", ""])[0] == [-1.0, -1.0]
    found, logged = rewards(make(url, on_failure="none"), said)
    assert found == [pytest.approx(first, abs=1e-5), None, None]
    assert logged["assay/failed"] == pytest.approx(2 / 3)
    assert rewards(make(url, on_failure="skip"), said)[0] == [None, None, None]
    with pytest.raises(ItemFailedError):
        rewards(make(url), said)


@pytest.mark.weights
def test_it_can_be_pickled_with_its_guards(url: str, make: Any, closing: Any) -> None:
    reward = make(url, guards=Guards(novelty=0.9), empty=-2.0)
    copy = closing(pickle.loads(pickle.dumps(reward)))
    assert rewards(copy, [*COMPLETIONS, ""]) == rewards(reward, [*COMPLETIONS, ""])


def test_what_is_sent(server: Any, make: Any, say: Any) -> None:
    server.always = lambda seen: say.json(say.score_reply([{"value": 1.0}] * 3))
    reward = make(server.url, guards=Guards(0, 0, 0), system="gram", run="exp")
    assert rewards(reward, COMPLETIONS)[0] == [1.0, 1.0, 1.0]
    body = server.seen[0].body
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


def test_a_model_that_knows_no_original_is_a_mistake_of_the_set_up(
    server: Any, make: Any, say: Any
) -> None:
    server.always = lambda seen: say.json(say.score_reply([{"value": 1.0}] * 3))
    with pytest.raises(ProtocolError, match="similarity"):
        rewards(make(server.url, on_failure="none"), COMPLETIONS)


def test_a_server_that_is_away_follows_the_policy(server: Any, make: Any, say: Any) -> None:
    server.always = say.problem(500)
    found, logged = rewards(make(server.url, on_failure="none", empty=-1.0), [*COMPLETIONS, ""])
    assert found == [None, None, None, -1.0]
    assert logged["assay/failed"] == pytest.approx(3 / 4)


def test_a_column_that_is_not_there_is_named(server: Any, make: Any) -> None:
    with pytest.raises(ValueError, match="original"):
        rewards(make(server.url, on_failure="none"), COMPLETIONS, original=None)
    assert server.seen == []


def test_fields_need_the_query_and_the_original(make: Any) -> None:
    with pytest.raises(ValueError, match="`original`"):
        make("http://127.0.0.1:1", fields={"query": "response"})
