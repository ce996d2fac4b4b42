"""Trainers' own code against a real server, for those that cannot be installed beside this project:
each wants older releases of what is pinned here. `docs/how-to/trainers/README.md` says
how to run these.
"""

import asyncio
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx2
import pytest

PROMPT, RESPONSE, LONG = "one two three", "one two", "word " * 5000

pytestmark = pytest.mark.filterwarnings("ignore")


def module(name: str) -> ModuleType:
    package = name.partition(".")[0]
    reason = f"{package} is not installed: it cannot be, beside the pinned transformers or trl"
    found: ModuleType = pytest.importorskip(name, reason=reason, exc_type=ImportError)
    return found


def scored(url: str, **item: str) -> float:
    body = {"model": "reference", "items": [item]}
    (result,) = httpx2.post(f"{url}/v1/score", json=body).json()["results"]
    return float(result["score"])


class TestOpenRlhf:
    """0.11.2."""

    def fetched(self, urls: Any, count: int) -> list[dict[str, Any]]:
        agent = module("openrlhf.utils.agent")
        prompt = f"<|im_start|>user\n{PROMPT}<|im_end|>\n<|im_start|>assistant\n"
        queries = [f"{prompt}{RESPONSE}<|im_end|>"] * count
        executor = agent.SingleTurnAgentExecutor(remote_rm_url=urls)
        asked = executor._fetch_rewards_via_http(queries, [prompt] * count, [None] * count)
        found: list[dict[str, Any]] = asyncio.run(asked)
        return found

    def test_its_executor_reads_rewards(self, reference_url: str) -> None:
        url = f"{reference_url}/compat/openrlhf/reference"
        expected = scored(reference_url, prompt=PROMPT, response=RESPONSE)
        (one,) = self.fetched(url, 1)
        assert one["rewards"] == one["scores"] == [expected]
        shares = self.fetched([url, url], 3)
        assert [reward for share in shares for reward in share["rewards"]] == [expected] * 3


class TestVerl:
    """0.9.1."""

    @pytest.mark.parametrize("name", ["compute_score", "compute_score_sync"])
    def test_its_loader_finds_the_function(self, reference_url: str, name: str) -> None:
        reward, omegaconf = module("verl.trainer.ppo.reward"), module("omegaconf")
        chosen = {"model": "reference@1", "on_failure": "raise", "url": reference_url}
        path = "pkg://assay_client.trainers.verl"
        function = {"path": path, "name": name, "reward_kwargs": chosen}
        config = omegaconf.OmegaConf.create({"reward": {"custom_reward_function": function}})
        load = reward.get_custom_reward_fn(config)
        row = {"data_source": "d", "ground_truth": None, "extra_info": {"prompt": PROMPT}}
        found = load(solution_str=RESPONSE, **row)
        if asyncio.iscoroutine(found):
            found = asyncio.run(found)
        assert found == {"score": scored(reference_url, prompt=PROMPT, response=RESPONSE)}

    @pytest.mark.parametrize("engine", ["vllm", "sglang"])
    def test_its_reward_model_reads_the_logit(self, reference_url: str, engine: str) -> None:
        loop, omegaconf = module("verl.experimental.reward_loop.reward_loop"), module("omegaconf")
        client, text = module("aiohttp"), PROMPT

        async def templated(_: object) -> str:
            return text

        model = {"rollout": {"name": engine}, "model_path": "/checkpoints/rm"}
        worker = object.__new__(loop.RewardLoopWorker)
        worker.config = omegaconf.OmegaConf.create({"reward": {"reward_model": model}})
        address = reference_url.removeprefix("http://")
        worker.reward_router_address = f"{address}/compat/{engine}/reference"
        worker._preprocess_reward_inputs = templated
        found = asyncio.run(worker.compute_score_disrm(None))
        assert found == {"reward_score": scored(reference_url, text=PROMPT)}
        text = LONG
        with pytest.raises(client.ClientResponseError) as caught:
            asyncio.run(worker.compute_score_disrm(None))
        assert caught.value.status == 422


class TestMsSwift:
    """4.6.0."""

    def test_its_plugins_find_the_reward(
        self, reference_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rewards, swift = module("swift.rewards"), module("swift.utils")
        plugin = tmp_path / "assay_plugin.py"
        plugin.write_text(
            "from swift.rewards import orms\n"
            "from assay_client.trainers.ms_swift import Reward\n"
            "orms['assay'] = Reward\n"
        )
        monkeypatch.setenv("ASSAY_URL", reference_url)
        monkeypatch.setenv("ASSAY_REWARD_MODEL", "reference@1")
        monkeypatch.setenv("ASSAY_REWARD_ON_FAILURE", "skip")
        monkeypatch.setenv("ASSAY_REWARD_FIELDS", "text=response")
        swift.import_external_file(str(plugin))
        reward = rewards.orms["assay"](args=None)
        turn = {"role": "user", "content": PROMPT}
        messages = [[turn, {"role": "assistant", "content": RESPONSE}]] * 2
        found = reward([RESPONSE, "nothing"], messages=messages)
        assert found == [scored(reference_url, text=text) for text in (RESPONSE, "nothing")]
