"""The reward of grounded answers, called as TRL 1.16.0 calls a reward function."""

import json
import pickle
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from assay_client import APIStatusError, InferenceFailedError, ItemFailedError, ProtocolError
from assay_client.rewards.contracts import GroundedAnswer, recompute_reward
from assay_client.trainers.grounded_answers import Reward
from assay_models.families.nli.claims import ClaimVerdict, phi
from assay_models.items import LABELS, Label

EVIDENCE = ["Corrin Light stands on a cliff. Its keeper raises goats, and its lamp burns red."]
REFERENCE = "the keeper of corrin light raises goats . the lamp of corrin light burns red ."
ANSWER = f"<answer>{REFERENCE}</answer>"
PARTLY = (
    "<answer>the keeper of corrin light raises goats . its lamp burns in green , not red .</answer>"
)
UNTAGGED = REFERENCE
Verdicts = Sequence[tuple[Label, float]]
SUPPORTED: Verdicts = [("entailment", 0.9), ("entailment", 0.8)]


@pytest.fixture
def make(close_later: Any) -> Callable[..., Reward]:
    def make_one(url: str, **settings: Any) -> Reward:
        given = {"on_failure": "none", "max_retries": 0, **settings}
        reward: Reward = close_later(Reward("nli@2", url=url, **given))
        return reward

    return make_one


@pytest.fixture
def checker(server: Any, canned: Any) -> Callable[..., None]:
    """A function that makes the server a checker with these verdicts or failures, one an item."""

    def result_of(index: int, item: Mapping[str, Any], outcome: Verdicts | str) -> dict[str, Any]:
        value = None if isinstance(outcome, str) else 0.0
        (result,) = canned.score_reply([{"value": value, "group": item["group"]}])["results"]
        if isinstance(outcome, str):
            failure = {"code": outcome, "detail": "why"}
            return {**result, "index": index, "channels": {}, "error": failure}
        score = phi([ClaimVerdict(label, confidence) for label, confidence in outcome])
        claims = [{"label": label, "confidence": confidence} for label, confidence in outcome]
        channels = {"phi": score.clipped, **dict.fromkeys(("support", "neutral"), 0.0)}
        own = {"score": score.clipped, "raw": score.unclipped, "channels": channels}
        return {**result, **own, "index": index, "details": {"claims": claims}}

    def set_outcomes(*outcomes: Verdicts | str) -> None:
        def answer(received: Any) -> Any:
            items, count = received.body["items"], len(outcomes)
            assert len(items) == count
            results = [result_of(*row) for row in zip(range(count), items, outcomes, strict=True)]
            reply = canned.score_reply([{"value": 0.0}] * count, "nli@2")
            return canned.json({**reply, "results": results})

        server.always = answer

    return set_outcomes


def rewards(reward: Reward, completions: Any, **columns: Any) -> tuple[Any, dict[str, float]]:
    logged: dict[str, float] = {}
    count = len(completions)
    arguments = {
        "evidence": [EVIDENCE] * count,
        "references": [[REFERENCE]] * count,
        "trainer_state": SimpleNamespace(global_step=3),
        "log_metric": logged.__setitem__,
        **columns,
    }
    found = reward(prompts=["What of Corrin Light?"] * count, completions=completions, **arguments)
    return found, logged


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("other", LABELS)
@pytest.mark.parametrize("completion", [ANSWER, PARTLY])
def test_changing_a_label_changes_the_reward_by_the_formula(
    server: Any, make: Any, checker: Any, completion: str, other: Label, alpha: float
) -> None:
    reward = make(server.url, contract=GroundedAnswer(alpha=alpha))
    checker(SUPPORTED)
    ((before,), _) = rewards(reward, [completion])
    base = reward.breakdowns[0].base
    checker([SUPPORTED[0], (other, 0.8)])
    ((after,), _) = rewards(reward, [completion])
    weight = {"entailment": 1.0, "neutral": 0.0, "contradiction": -1.5}
    difference = base * alpha * (weight[other] - 1.0) * 0.8 / 2
    assert after - before == pytest.approx(difference)
    assert (difference != 0) == (alpha > 0 and other != "entailment")


def test_without_alpha_labels_do_not_change_the_reward(
    server: Any, make: Any, checker: Any
) -> None:
    reward = make(server.url, contract=GroundedAnswer(alpha=0))
    found = set()
    for label in LABELS:
        checker([(label, 1.0)])
        found.add(rewards(reward, [PARTLY])[0][0])
    assert len(found) == 1


def test_answers_are_sent_and_means_logged(server: Any, make: Any, checker: Any) -> None:
    checker(SUPPORTED, [("contradiction", 1.0)])
    reward = make(server.url, run="exp")
    found, logged = rewards(reward, [ANSWER, UNTAGGED, PARTLY])
    body = server.received[0].body
    assert body["run"] == {"id": "exp", "split": "train", "step": 3}
    assert [item["evidence"] for item in body["items"]] == [EVIDENCE] * 2
    assert body["items"][0]["response"] == REFERENCE
    assert len({item["group"] for item in body["items"]}) == 1
    first, _, third = reward.breakdowns
    assert found == [first.reward, -0.5, third.reward]
    assert logged == pytest.approx(
        {
            "assay/base": (first.base + third.base) / 3,
            "assay/exact": 1 / 3,
            "assay/f1": (1 + third.f1) / 3,
            "assay/form": (first.form + third.form) / 3,
            "assay/penalty": -0.5 / 3,
            "assay/phi": (0.85 - 1) / 2,
            "assay/from_phi": (first.base * 0.85 - third.base) / 3,
            "assay/no_answer": 1 / 3,
            "assay/failed": 0,
        }
    )
    assert sum(found) / 3 == pytest.approx(
        logged["assay/base"] + logged["assay/from_phi"] + logged["assay/penalty"]
    )
    for breakdown, number in zip(reward.breakdowns, found, strict=True):
        assert recompute_reward(json.loads(json.dumps(breakdown.to_dict()))) == number


def test_failures_are_distinguished_and_counted(server: Any, make: Any, checker: Any) -> None:
    checker(SUPPORTED, "no_claims", "no_evidence")
    reward = make(server.url)
    found, logged = rewards(reward, [ANSWER] * 3)
    assert found[1:] == [pytest.approx(0), None]
    assert found[0] > 1.8
    assert reward.failures.reasons == {"no_claims": 1, "no_evidence": 1}
    counted = (reward.failures.scored, reward.failures.failed, reward.failures.substituted)
    assert counted == (1, 2, 1)
    for name in ("no_claims", "no_evidence", "failed"):
        assert logged[f"assay/{name}"] == pytest.approx(1 / 3)
    assert logged["assay/phi"] == pytest.approx(0.85), "fallbacks are no phis of the checker"


def test_the_policy_applies_to_completions_without_a_reward(
    server: Any, make: Any, checker: Any
) -> None:
    checker(SUPPORTED, "no_evidence")
    assert rewards(make(server.url, on_failure="skip"), [ANSWER] * 2)[0] == [None, None]
    with pytest.raises(ItemFailedError):
        rewards(make(server.url, on_failure="raise"), [ANSWER] * 2)
    checker(SUPPORTED, "no_claims")
    found, _ = rewards(make(server.url, on_failure="raise"), [ANSWER] * 2)
    assert found[1] == pytest.approx(0), "the contract has a number, so there is nothing to raise"


def test_a_server_error_leaves_answers_unscored(server: Any, make: Any, canned: Any) -> None:
    server.always = canned.problem(500, "inference_failed")
    reward = make(server.url)
    found, logged = rewards(reward, [ANSWER, UNTAGGED])
    assert found == [None, -0.5]
    assert logged["assay/unscored"] == 0.5
    assert reward.failures.reasons == {"inference_failed": 1}
    with pytest.raises(InferenceFailedError):
        rewards(make(server.url, on_failure="raise"), [ANSWER])


def test_a_configuration_error_is_raised(server: Any, make: Any, canned: Any) -> None:
    server.always = canned.problem(404, "model_not_found")
    with pytest.raises(APIStatusError, match="model_not_found"):
        rewards(make(server.url), [ANSWER])
    server.always = lambda received: canned.json(canned.score_reply([{"value": 1.0}], "nli@2"))
    with pytest.raises(ProtocolError, match="phi"):
        rewards(make(server.url), [ANSWER])


def test_answers_without_tags_need_no_server(server: Any, make: Any) -> None:
    found, logged = rewards(make(server.url), [UNTAGGED, ""])
    assert found == [-0.5, -0.5]
    assert server.received == []
    assert logged["assay/no_answer"] == 1


def test_completions_may_be_messages_and_columns_renamed(
    server: Any, make: Any, checker: Any
) -> None:
    checker(SUPPORTED)
    fields = {"response": "response", "references": "gold", "evidence": "context"}
    completions = [[{"role": "assistant", "content": ANSWER}]]
    columns = {"gold": [[REFERENCE]], "context": ["one text"], "evidence": None}
    found, _ = rewards(make(server.url, fields=fields), completions, **columns, references=None)
    assert found[0] > 1.8
    assert server.received[0].body["items"][0]["evidence"] == "one text"


def test_further_fields_are_sent(server: Any, make: Any, checker: Any) -> None:
    checker(SUPPORTED)
    fields = {**Reward.fields, "calls": "searches"}
    rewards(make(server.url, fields=fields), [ANSWER, UNTAGGED], searches=[2, 0])
    (item,) = server.received[0].body["items"]
    assert item.pop("group")
    assert item == {"response": REFERENCE, "evidence": EVIDENCE, "calls": 2}


def test_flags_are_counted(server: Any, make: Any, canned: Any) -> None:
    reply = canned.score_reply([{"value": 0.5}], "nli@2")
    reply["results"][0] |= {"channels": {"phi": 0.5}, "flags": ["low_confidence"]}
    server.always = canned.json(reply)
    _, logged = rewards(make(server.url), [ANSWER, UNTAGGED])
    assert logged["assay/flag_low_confidence"] == 0.5


def test_the_reward_can_be_pickled_with_its_contract(
    server: Any, make: Any, checker: Any, close_later: Any
) -> None:
    checker([("contradiction", 0.5)])
    reward = make(server.url, contract=GroundedAnswer(alpha=0.25))
    copy = close_later(pickle.loads(pickle.dumps(reward)))
    assert rewards(copy, [ANSWER]) == rewards(reward, [ANSWER])
    assert copy.breakdowns[0].alpha == 0.25


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"fields": {"response": "response", "evidence": "context"}}, "`references`"),
        ({"options": {"on_error": {"substitute": 0.0}}}, "fallbacks"),
    ],
)
def test_invalid_settings_are_refused(make: Any, settings: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        make("http://127.0.0.1:1", **settings)


def test_a_missing_column_is_named(server: Any, make: Any) -> None:
    with pytest.raises(ValueError, match="references"):
        rewards(make(server.url), [ANSWER], references=None)
    assert server.received == []
