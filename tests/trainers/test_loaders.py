"""Trainers' own code with a real server, for trainers that conflict with this project's pins.

`docs/how-to/trainers/README.md` documents how to run these tests.
"""

import asyncio
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx2
import pytest

PROMPT, RESPONSE, LONG = "one two three", "one two", "word " * 5000

pytestmark = pytest.mark.filterwarnings("ignore")


def import_or_skip(name: str) -> ModuleType:
    package = name.partition(".")[0]
    reason = f"{package} is not installed: it cannot be, beside the pinned transformers or trl"
    imported: ModuleType = pytest.importorskip(name, reason=reason, exc_type=ImportError)
    return imported


def server_score(url: str, **item: str) -> float:
    body = {"model": "reference", "items": [item]}
    (result,) = httpx2.post(f"{url}/v1/score", json=body).json()["results"]
    return float(result["score"])


class TestOpenRlhf:
    """OpenRLHF 0.11.2."""

    def fetch_rewards(self, urls: Any, count: int) -> list[dict[str, Any]]:
        agent = import_or_skip("openrlhf.utils.agent")
        prompt = f"<|im_start|>user\n{PROMPT}<|im_end|>\n<|im_start|>assistant\n"
        queries = [f"{prompt}{RESPONSE}<|im_end|>"] * count
        executor = agent.SingleTurnAgentExecutor(remote_rm_url=urls)
        request = executor._fetch_rewards_via_http(queries, [prompt] * count, [None] * count)
        rewards: list[dict[str, Any]] = asyncio.run(request)
        return rewards

    def test_the_executor_reads_rewards(self, reference_url: str) -> None:
        url = f"{reference_url}/compat/openrlhf/reference"
        expected = server_score(reference_url, prompt=PROMPT, response=RESPONSE)
        (reply,) = self.fetch_rewards(url, 1)
        assert reply["rewards"] == reply["scores"] == [expected]
        replies = self.fetch_rewards([url, url], 3)
        assert [reward for reply in replies for reward in reply["rewards"]] == [expected] * 3


class TestVerl:
    """verl 0.9.1."""

    @pytest.mark.parametrize("name", ["compute_score", "compute_score_sync"])
    def test_the_loader_finds_the_function(self, reference_url: str, name: str) -> None:
        reward, omegaconf = import_or_skip("verl.trainer.ppo.reward"), import_or_skip("omegaconf")
        settings = {"model": "reference@1", "on_failure": "raise", "url": reference_url}
        path = "pkg://assay_client.trainers.verl"
        function = {"path": path, "name": name, "reward_kwargs": settings}
        config = omegaconf.OmegaConf.create({"reward": {"custom_reward_function": function}})
        load = reward.get_custom_reward_fn(config)
        row = {"data_source": "d", "ground_truth": None, "extra_info": {"prompt": PROMPT}}
        result = load(solution_str=RESPONSE, **row)
        if asyncio.iscoroutine(result):
            result = asyncio.run(result)
        assert result == {"score": server_score(reference_url, prompt=PROMPT, response=RESPONSE)}

    @pytest.mark.parametrize("engine", ["vllm", "sglang"])
    def test_the_reward_model_reads_the_logit(self, reference_url: str, engine: str) -> None:
        loop, omegaconf = (
            import_or_skip("verl.experimental.reward_loop.reward_loop"),
            import_or_skip("omegaconf"),
        )
        client, text = import_or_skip("aiohttp"), PROMPT

        async def templated(_: object) -> str:
            return text

        model = {"rollout": {"name": engine}, "model_path": "/checkpoints/rm"}
        worker = object.__new__(loop.RewardLoopWorker)
        worker.config = omegaconf.OmegaConf.create({"reward": {"reward_model": model}})
        address = reference_url.removeprefix("http://")
        worker.reward_router_address = f"{address}/compat/{engine}/reference"
        worker._preprocess_reward_inputs = templated
        result = asyncio.run(worker.compute_score_disrm(None))
        assert result == {"reward_score": server_score(reference_url, text=PROMPT)}
        text = LONG
        with pytest.raises(client.ClientResponseError) as caught:
            asyncio.run(worker.compute_score_disrm(None))
        assert caught.value.status == 422


class TestMsSwift:
    """ms-swift 4.6.0."""

    def test_the_plugin_registers_the_reward(
        self, reference_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rewards, swift = import_or_skip("swift.rewards"), import_or_skip("swift.utils")
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
        question = {"role": "user", "content": PROMPT}
        messages = [[question, {"role": "assistant", "content": RESPONSE}]] * 2
        result = reward([RESPONSE, "nothing"], messages=messages)
        assert result == [server_score(reference_url, text=text) for text in (RESPONSE, "nothing")]
