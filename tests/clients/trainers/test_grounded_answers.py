"""The reward of grounded answers, called as TRL 1.16.0 calls a reward function."""

import json
import pickle
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from assay_client import APIStatusError, InferenceFailedError, ItemFailedError, ProtocolError
from assay_client.rewards.contracts import GroundedAnswer, recomputed
from assay_client.trainers.grounded_answers import Reward
from assay_models.families.nli.claims import Verdict, phi
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
def make(closing: Any) -> Callable[..., Reward]:
    def make_one(url: str, **settings: Any) -> Reward:
        given = {"on_failure": "none", "max_retries": 0, **settings}
        reward: Reward = closing(Reward("nli@2", url=url, **given))
        return reward

    return make_one


@pytest.fixture
def checker(server: Any, say: Any) -> Callable[..., None]:
    """Makes the server a checker that has these verdicts, or these failures, one an item."""

    def judged(index: int, item: Mapping[str, Any], told: Verdicts | str) -> dict[str, Any]:
        failed = isinstance(told, str)
        (one,) = say.score_reply([{"value": None if failed else 0.0, "group": item["group"]}])[
            "results"
        ]
        if failed:
            failure = {"code": told, "detail": "why"}
            return {**one, "index": index, "channels": {}, "error": failure}
        found = phi([Verdict(label, sure) for label, sure in told])
        claims = [{"label": label, "confidence": sure} for label, sure in told]
        channels = {"phi": found.clipped, **dict.fromkeys(("support", "neutral"), 0.0)}
        own = {"score": found.clipped, "raw": found.unclipped, "channels": channels}
        return {**one, **own, "index": index, "details": {"claims": claims}}

    def be(*told: Verdicts | str) -> None:
        def answer(seen: Any) -> Any:
            items = seen.body["items"]
            assert len(items) == len(told)
            results = [judged(*row) for row in zip(range(len(told)), items, told, strict=True)]
            reply = say.score_reply([{"value": 0.0}] * len(told))
            return say.json({**reply, "model": "nli@2", "results": results})

        server.always = answer

    return be


def rewards(reward: Reward, completions: Any, **columns: Any) -> tuple[Any, dict[str, float]]:
    logged: dict[str, float] = {}
    count = len(completions)
    told = {
        "evidence": [EVIDENCE] * count,
        "references": [[REFERENCE]] * count,
        "trainer_state": SimpleNamespace(global_step=3),
        "log_metric": logged.__setitem__,
        **columns,
    }
    found = reward(prompts=["What of Corrin Light?"] * count, completions=completions, **told)
    return found, logged


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("other", LABELS)
@pytest.mark.parametrize("completion", [ANSWER, PARTLY])
def test_flipping_one_label_moves_the_trainers_number_by_the_formula(
    server: Any, make: Any, checker: Any, completion: str, other: Label, alpha: float
) -> None:
    reward = make(server.url, contract=GroundedAnswer(alpha=alpha))
    checker(SUPPORTED)
    ((before,), _) = rewards(reward, [completion])
    base = reward.accounts[0].base
    checker([SUPPORTED[0], (other, 0.8)])
    ((after,), _) = rewards(reward, [completion])
    weight = {"entailment": 1.0, "neutral": 0.0, "contradiction": -1.5}
    moved = base * alpha * (weight[other] - 1.0) * 0.8 / 2
    assert after - before == pytest.approx(moved)
    assert (moved != 0) == (alpha > 0 and other != "entailment")


def test_without_alpha_no_label_changes_anything(server: Any, make: Any, checker: Any) -> None:
    reward = make(server.url, contract=GroundedAnswer(alpha=0))
    found = set()
    for label in LABELS:
        checker([(label, 1.0)])
        found.add(rewards(reward, [PARTLY])[0][0])
    assert len(found) == 1


def test_what_is_sent_and_logged(server: Any, make: Any, checker: Any) -> None:
    checker(SUPPORTED, [("contradiction", 1.0)])
    reward = make(server.url, run="exp")
    found, logged = rewards(reward, [ANSWER, UNTAGGED, PARTLY])
    body = server.seen[0].body
    assert body["run"] == {"id": "exp", "split": "train", "step": 3}
    assert [item["evidence"] for item in body["items"]] == [EVIDENCE] * 2
    assert body["items"][0]["response"] == REFERENCE
    assert len({item["group"] for item in body["items"]}) == 1
    first, _, third = reward.accounts
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
    for one, number in zip(reward.accounts, found, strict=True):
        assert recomputed(json.loads(json.dumps(one.told()))) == number


def test_failures_are_told_apart_and_counted(server: Any, make: Any, checker: Any) -> None:
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
    assert logged["assay/phi"] == pytest.approx(0.85), "stand-ins are no phis of the checker"


def test_the_policy_for_what_has_no_reward(server: Any, make: Any, checker: Any) -> None:
    checker(SUPPORTED, "no_evidence")
    assert rewards(make(server.url, on_failure="skip"), [ANSWER] * 2)[0] == [None, None]
    with pytest.raises(ItemFailedError):
        rewards(make(server.url, on_failure="raise"), [ANSWER] * 2)
    checker(SUPPORTED, "no_claims")
    found, _ = rewards(make(server.url, on_failure="raise"), [ANSWER] * 2)
    assert found[1] == pytest.approx(0), "the contract has a number, so there is nothing to raise"


def test_a_server_that_is_away(server: Any, make: Any, say: Any) -> None:
    server.always = say.problem(500, "inference_failed")
    reward = make(server.url)
    found, logged = rewards(reward, [ANSWER, UNTAGGED])
    assert found == [None, -0.5]
    assert logged["assay/unscored"] == 0.5
    assert reward.failures.reasons == {"inference_failed": 1}
    with pytest.raises(InferenceFailedError):
        rewards(make(server.url, on_failure="raise"), [ANSWER])


def test_a_mistake_of_the_set_up_is_raised(server: Any, make: Any, say: Any) -> None:
    server.always = say.problem(404, "model_not_found")
    with pytest.raises(APIStatusError, match="model_not_found"):
        rewards(make(server.url), [ANSWER])
    server.always = say.usual
    server.always = lambda seen: say.json(say.score_reply([{"value": 1.0}]))
    with pytest.raises(ProtocolError, match="phi"):
        rewards(make(server.url), [ANSWER])


def test_answers_without_tags_need_no_server(server: Any, make: Any) -> None:
    found, logged = rewards(make(server.url), [UNTAGGED, ""])
    assert found == [-0.5, -0.5]
    assert server.seen == []
    assert logged["assay/no_answer"] == 1


def test_conversations_and_columns_of_other_names(server: Any, make: Any, checker: Any) -> None:
    checker(SUPPORTED)
    fields = {"response": "response", "references": "gold", "evidence": "context"}
    said = [[{"role": "assistant", "content": ANSWER}]]
    columns = {"gold": [[REFERENCE]], "context": ["one text"], "evidence": None}
    found, _ = rewards(make(server.url, fields=fields), said, **columns, references=None)
    assert found[0] > 1.8
    assert server.seen[0].body["items"][0]["evidence"] == "one text"


def test_further_fields_are_sent_along(server: Any, make: Any, checker: Any) -> None:
    checker(SUPPORTED)
    fields = {**Reward.fields, "calls": "searches"}
    rewards(make(server.url, fields=fields), [ANSWER, UNTAGGED], searches=[2, 0])
    (item,) = server.seen[0].body["items"]
    assert item.pop("group")
    assert item == {"response": REFERENCE, "evidence": EVIDENCE, "calls": 2}


def test_flags_are_counted(server: Any, make: Any, say: Any) -> None:
    reply = say.score_reply([{"value": 0.5}])
    reply["results"][0] |= {"channels": {"phi": 0.5}, "flags": ["low_confidence"]}
    server.always = say.json(reply)
    _, logged = rewards(make(server.url), [ANSWER, UNTAGGED])
    assert logged["assay/flag_low_confidence"] == 0.5


def test_it_can_be_pickled_with_its_contract(
    server: Any, make: Any, checker: Any, closing: Any
) -> None:
    checker([("contradiction", 0.5)])
    reward = make(server.url, contract=GroundedAnswer(alpha=0.25))
    copy = closing(pickle.loads(pickle.dumps(reward)))
    assert rewards(copy, [ANSWER]) == rewards(reward, [ANSWER])
    assert copy.accounts[0].alpha == 0.25


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"fields": {"response": "response", "evidence": "context"}}, "`references`"),
        ({"options": {"on_error": {"substitute": 0.0}}}, "standins"),
    ],
)
def test_settings_that_cannot_be_meant(make: Any, settings: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        make("http://127.0.0.1:1", **settings)


def test_a_column_that_is_not_there_is_named(server: Any, make: Any) -> None:
    with pytest.raises(ValueError, match="references"):
        rewards(make(server.url), [ANSWER], references=None)
    assert server.seen == []
