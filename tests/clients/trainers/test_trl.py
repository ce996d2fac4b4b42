"""The TRL reward, called as TRL 1.16.0 calls it (GRPOTrainer._calculate_rewards)."""

import asyncio
import inspect
import logging
import math
import pickle
from collections.abc import Callable
from importlib import metadata
from types import SimpleNamespace
from typing import Any

import pytest

from assay_client import APIConnectionError, ItemFailedError, NotFoundError
from assay_client.trainers import trl

TOO_LONG = "word " * 5000
PROMPTS = ["one two three", "one two three", "four five"]
COMPLETIONS = ["three two", "nothing", "five four"]
EXPECTED = [math.log(3 / 2), math.log(1 / 4), math.log(3)]
MISSING = pytest.approx(math.nan, nan_ok=True)


class Trainer:
    """TRL's use of a reward function: None becomes NaN."""

    def __init__(self, function: Any) -> None:
        self.function = function
        self.logged: dict[str, float] = {}
        self.name = getattr(function, "__name__", type(function).__name__)
        self.is_async = inspect.iscoroutinefunction(function.__call__)

    def rewards(self, prompts: Any, completions: Any, **columns: Any) -> list[float]:
        arguments = {
            **columns,
            "trainer_state": SimpleNamespace(global_step=7),
            "log_extra": lambda name, values: None,
            "log_metric": self.logged.__setitem__,
        }
        ids = [[1, 2, 3] for _ in prompts]
        found = self.function(
            prompts=prompts, completions=completions, completion_ids=ids, **arguments
        )
        if self.is_async:
            found = asyncio.run(self._await(found))
        assert len(found) == len(prompts)
        return [math.nan if reward is None else reward for reward in found]

    async def _await(self, found: Any) -> Any:
        try:
            return await found
        finally:
            await self.function.aclose()


@pytest.fixture(params=[trl.Reward, trl.AsyncReward], ids=["sync", "async"])
def make(request: pytest.FixtureRequest, close_later: Any) -> Callable[..., Any]:
    def make_one(*args: Any, **settings: Any) -> Any:
        reward = request.param(*args, **settings)
        return close_later(reward) if isinstance(reward, trl.Reward) else reward

    return make_one


def test_texts_are_scored(make: Any, assay_url: str) -> None:
    trainer = Trainer(make("reference", on_failure="raise", url=assay_url))
    assert trainer.rewards(PROMPTS, COMPLETIONS) == pytest.approx(EXPECTED)
    assert trainer.logged == {"assay/failed": 0.0}
    assert trainer.name == "assay_reference"
    assert trainer.function.failures.scored == 3


WITH_VALUE = {"prompt": "prompt", "response": "response", "value": "value"}


def test_conversations_are_scored(make: Any, server: Any) -> None:
    prompt = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "one"}]
    parts = [{"type": "text", "text": "it is "}, {"type": "text", "text": "2"}]
    last = {"role": "assistant", "content": parts}
    call = {"role": "assistant", "content": None, "tool_calls": [{"name": "f"}]}
    tool = {"role": "tool", "content": "2"}
    trainer = Trainer(make("code", on_failure="raise", url=server.url, fields=WITH_VALUE))
    found = trainer.rewards([prompt, prompt], [[last], [call, tool, last]], value=[1.0, 2.0])
    assert found == [1.0, 2.0]
    first, second = server.received[0].body["items"]
    assert (first["prompt"], first["response"]) == (prompt, "it is 2")
    assert second["prompt"] == [*prompt, {"role": "assistant", "content": ""}, tool]
    assert second["response"] == "it is 2"
    assert first["group"] == second["group"]


@pytest.mark.parametrize(
    "completion", [[], [{"role": "user", "content": "x"}], [{"role": "assistant", "content": [{}]}]]
)
def test_a_completion_without_text_is_refused(make: Any, server: Any, completion: Any) -> None:
    trainer = Trainer(make("code", on_failure="none", url=server.url))
    with pytest.raises(ValueError, match=r"assistant|not text"):
        trainer.rewards(["p"], [completion])
    assert server.received == []


def test_items_have_the_group_of_their_prompt_and_the_run_its_step(make: Any, server: Any) -> None:
    fields = {"response": "response", "value": "score_of", "evidence": "context"}
    reward = make("nli", on_failure="raise", url=server.url, fields=fields, run="exp-1")
    columns = {"score_of": [1, 2, 3], "context": ["a", "b", "c"], "seed": 4}
    Trainer(reward).rewards(["p", "q", "p"], ["x", "y", "z"], **columns)
    (received,) = server.received
    assert received.body["run"] == {"id": "exp-1", "step": 7, "split": "train"}
    items = received.body["items"]
    assert items[0]["group"] == items[2]["group"] != items[1]["group"]
    assert [sorted(item) for item in items] == [["evidence", "group", "response", "value"]] * 3
    assert [item["evidence"] for item in items] == ["a", "b", "c"]


def test_a_missing_column_is_named(make: Any, server: Any) -> None:
    fields = {"evidence": "context", "response": "response"}
    reward = make("nli", on_failure="none", url=server.url, fields=fields)
    with pytest.raises(ValueError, match=r"no 'context' to score; there is: .*prompt, response"):
        Trainer(reward).rewards(["p"], ["x"])


class TestPolicies:
    """Policies for failures, as in the table of docs/how-to/trainers/trl.md."""

    def rewards(self, reward: Any) -> list[float]:
        return Trainer(reward).rewards(PROMPTS, ["three two", TOO_LONG, "five four"])

    def test_raise_raises_the_items_error(self, make: Any, assay_url: str) -> None:
        reward = make("reference", on_failure="raise", url=assay_url)
        with pytest.raises(ItemFailedError, match=r"item 1 .* input_too_long"):
            self.rewards(reward)
        assert reward.failures.reasons == {"input_too_long": 1}

    def test_none_returns_nan_for_the_failed_item(
        self, make: Any, assay_url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        reward = make("reference", on_failure="none", url=assay_url)
        with caplog.at_level(logging.WARNING, "assay_client.trainers"):
            assert self.rewards(reward) == [
                pytest.approx(EXPECTED[0]),
                MISSING,
                pytest.approx(EXPECTED[2]),
            ]
        assert "1 of 3 items could not be scored: input_too_long" in caplog.text
        assert "word" not in caplog.text
        assert (reward.failures.scored, reward.failures.failed) == (2, 1)

    def test_skip_leaves_out_the_whole_group(self, make: Any, assay_url: str) -> None:
        reward = make("reference", on_failure="skip", url=assay_url)
        assert self.rewards(reward) == [MISSING, MISSING, pytest.approx(EXPECTED[2])]
        assert (reward.failures.scored, reward.failures.failed) == (2, 1)

    def test_a_substitute_of_the_server_is_used_and_counted(
        self, make: Any, assay_url: str
    ) -> None:
        options = {"on_error": {"substitute": -1.0}}
        reward = make("reference", on_failure="raise", url=assay_url, options=options)
        assert self.rewards(reward) == pytest.approx([EXPECTED[0], -1.0, EXPECTED[2]])
        assert (reward.failures.failed, reward.failures.substituted) == (1, 1)

    @pytest.mark.parametrize("policy", ["none", "skip"])
    def test_without_a_server_all_rewards_are_missing(
        self, policy: str, make: Any, refused_url: str
    ) -> None:
        reward = make("reference", on_failure=policy, url=refused_url, max_retries=0)
        assert self.rewards(reward) == [MISSING] * 3
        assert reward.failures.reasons == {"APIConnectionError": 3}

    def test_without_a_server_raise_raises(self, make: Any, refused_url: str) -> None:
        reward = make("reference", on_failure="raise", url=refused_url, max_retries=0)
        with pytest.raises(APIConnectionError):
            self.rewards(reward)

    @pytest.mark.parametrize("policy", ["raise", "none", "skip"])
    def test_a_configuration_error_always_raises(
        self, policy: str, make: Any, assay_url: str
    ) -> None:
        with pytest.raises(NotFoundError):
            self.rewards(make("no-such-model", on_failure=policy, url=assay_url))

    def test_model_and_policy_have_no_default(self, make: Any) -> None:
        values = "raise, none or skip, or pass on_failure="
        wanted = f"on_failure is not given: set ASSAY_REWARD_ON_FAILURE to {values}"
        with pytest.raises(ValueError, match=wanted):
            make("reference")
        with pytest.raises(ValueError, match="on_failure must say"):
            make("reference", on_failure="zero")
        with pytest.raises(ValueError, match="model is not given"):
            make(on_failure="raise")


@pytest.mark.parametrize("version", ["0.29.1", "1.5.0", "1.6.0", "1.16.0.dev0", "2.0"])
@pytest.mark.parametrize("policy", ["raise", "none", "skip"])
def test_an_old_trl_that_counts_none_as_zero_is_refused(
    version: str, policy: str, close_later: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: version)
    if policy != "raise" and version in ("0.29.1", "1.5.0"):
        with pytest.raises(ValueError, match=f"TRL {version} counts .* as 0. Choose 'raise'"):
            trl.Reward("reference", on_failure=policy)
    else:
        assert close_later(trl.Reward("reference", on_failure=policy)).settings.on_failure == policy


@pytest.mark.parametrize(("version", "is_supported"), [("1.13.0", False), ("1.14.0", True)])
def test_an_old_trl_that_does_not_await_an_object_is_refused(
    version: str, is_supported: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: version)
    if is_supported:
        assert trl.AsyncReward("reference", on_failure="none").settings.on_failure == "none"
    else:
        with pytest.raises(ValueError, match=r"TRL 1.13.0 does not await an object: use Reward"):
            trl.AsyncReward("reference", on_failure="raise")


def test_the_reward_can_be_pickled_with_its_settings(
    make: Any, assay_url: str, in_new_process: Any
) -> None:
    reward = make("reference", on_failure="none", url=assay_url, run="exp-1")
    found = in_new_process(
        reward, prompts=PROMPTS, completions=COMPLETIONS, completion_ids=[[1]] * 3
    )
    assert found == pytest.approx(EXPECTED)
    copy = pickle.loads(pickle.dumps(reward))
    assert copy.settings == reward.settings
    assert copy.__name__ == reward.__name__


def test_trl_recognises_the_asynchronous_reward() -> None:
    kinds = (trl.Reward, trl.AsyncReward)
    synchronous, asynchronous = (kind("code-x@2", on_failure="raise") for kind in kinds)
    assert not inspect.iscoroutinefunction(synchronous.__call__)
    assert inspect.iscoroutinefunction(asynchronous.__call__)
    assert synchronous.__name__ == "assay_code_x_v2"


def test_the_environment_configures_the_reward(
    make: Any, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = {
        "ASSAY_URL": server.url,
        "ASSAY_REWARD_MODEL": "code@2",
        "ASSAY_REWARD_ON_FAILURE": "none",
        "ASSAY_REWARD_RUN": "exp-9",
        "ASSAY_REWARD_TIMEOUT": "7",
        "ASSAY_REWARD_OPTIONS": '{"truncation": "left"}',
        "ASSAY_REWARD_FIELDS": "prompt=prompt, response=response, value=v",
    }
    for name, text in variables.items():
        monkeypatch.setenv(name, text)
    assert Trainer(make(run="exp-10")).rewards(["p"], ["x"], v=[3]) == [3.0]
    (received,) = server.received
    assert (received.body["model"], received.body["run"]["id"]) == ("code@2", "exp-10")
    assert received.body["options"] == {"truncation": "left"}
    assert int(received.headers["x-assay-timeout-ms"]) <= 7000


@pytest.mark.parametrize(
    ("name", "text"), [("TIMEOUT", "soon"), ("OPTIONS", "[1]"), ("OPTIONS", "{"), ("FIELDS", "a,b")]
)
def test_an_invalid_variable_is_named(
    name: str, text: str, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"ASSAY_REWARD_{name}", text)
    with pytest.raises(ValueError, match=f"ASSAY_REWARD_{name} cannot be read"):
        make("code", on_failure="raise")


@pytest.mark.parametrize(("prompts", "completions"), [("a prompt", ["r"] * 8), (["p"] * 4, "text")])
def test_a_text_is_not_taken_for_a_list_of_its_characters(
    prompts: Any, completions: Any, make: Callable[..., Any]
) -> None:
    reward = make("reference", on_failure="raise")
    with pytest.raises(ValueError, match="a list of texts is expected"):
        Trainer(reward).rewards(prompts, completions)
