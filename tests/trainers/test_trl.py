"""TRL's GRPOTrainer with a served model as its reward function, on a policy made on the spot."""

import asyncio
import math
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import httpx2
import numpy
import pandas
import pytest
import torch
from datasets import Dataset
from support.tiers import only_nightly
from trl import GRPOConfig, GRPOTrainer

from assay_client import ItemFailedError
from assay_client.trainers.trl import AsyncReward, Reward

from .conftest import process
from .policies import policy_of, tokenizer_of

STEPS, GROUP, SEED = 20, 4, 7
PROMPTS = ["Return the larger of two numbers.", "Return the last item of a list."]


def fenced(program: str) -> str:
    return f"```python\n{program}\n```\n"


UNANSWERABLE = fenced(f"x = [{'1, ' * 1200}]")
MOVES = [
    fenced("def larger(a, b):\n    return max(a, b)"),
    fenced("def larger(a, b):\n    return a if a > b else b"),
    fenced("def last(items):\n    return items[-1]"),
    fenced("def last(items):\n    return items[0]"),
    fenced("def last(items)\n    return items"),
    "I would rather not say.\n",
    UNANSWERABLE,
]

pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated:FutureWarning")


@pytest.fixture(scope="module")
def code_url() -> Iterator[str]:
    """A server process of the embedded code model."""
    with process(ASSAY_MODELS="code") as url:
        yield url


def trained(folder: Path, reward: Any) -> tuple[GRPOTrainer, pandas.DataFrame]:
    """The trainer after all its steps, and what it logged of each completion."""
    tokenizer = tokenizer_of([*PROMPTS, *MOVES])
    arguments = GRPOConfig(
        output_dir=str(folder),
        use_cpu=True,
        bf16=False,
        seed=SEED,
        max_steps=STEPS,
        per_device_train_batch_size=GROUP,
        num_generations=GROUP,
        max_completion_length=2,
        learning_rate=1e-2,
        logging_steps=1,
        log_completions=True,
        num_completions_to_print=0,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    trainer = GRPOTrainer(
        model=policy_of(tokenizer, SEED),
        reward_funcs=[reward],
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt": PROMPTS * STEPS}),
        processing_class=tokenizer,
    )
    trainer.train()
    tables = sorted(folder.glob("**/completions_*.parquet"))
    return trainer, pandas.concat([pandas.read_parquet(table) for table in tables])


def told(url: str, model: str, logged: pandas.DataFrame) -> list[float | None]:
    """What the server says of the same completions, asked directly."""
    items = [
        {"prompt": prompt, "response": completion}
        for prompt, completion in zip(logged["prompt"], logged["completion"], strict=True)
    ]
    answer = httpx2.post(f"{url}/v1/score", json={"model": model, "items": items}, timeout=120)
    return [result["score"] for result in answer.json()["results"]]


def agrees(logged: float, score: float | None) -> bool:
    """Whether TRL holds this score, in single precision, or NaN for none."""
    return math.isnan(logged) if score is None else logged == float(numpy.float32(score))


def advantages_of(scores: list[float | None]) -> list[float]:
    """GRPO's, among those of a group that have a score; the others move nothing."""
    there = [score for score in scores if score is not None]
    if not there:
        return [0.0] * len(scores)
    middle, spread = mean(there), stdev(there) if len(there) > 1 else 0.0
    return [0.0 if score is None else (score - middle) / (spread + 1e-4) for score in scores]


@only_nightly
@pytest.mark.weights
def test_twenty_steps_with_the_code_model(code_url: str, tmp_path: Path) -> None:
    reward = Reward("code@2", on_failure="none", url=code_url, run="grpo")
    trainer, logged = trained(tmp_path, reward)
    reward.close()
    assert trainer.state.global_step == STEPS
    assert len(logged) == STEPS * GROUP

    scores = told(code_url, "code@2", logged)
    rewards, advantages = logged["assay_code_v2"].tolist(), logged["advantage"].tolist()
    assert all(map(agrees, rewards, scores))
    missing = [place for place, score in enumerate(scores) if score is None]
    assert missing, "the policy never wrote what cannot be scored"
    assert scores.count(0.0), "the policy never wrote what has no program"
    assert any(scores), "the policy never wrote a program"
    assert reward.failures.reasons == {"input_too_long": len(missing)}

    for start in range(0, len(scores), GROUP):
        own = advantages[start : start + GROUP]
        assert own == pytest.approx(advantages_of(scores[start : start + GROUP]), abs=1e-3)

    shares = [line["assay/failed"] for line in trainer.state.log_history if "assay/failed" in line]
    assert sum(shares) * GROUP == pytest.approx(len(missing))
    weights = policy_of(trainer.processing_class, SEED).state_dict()
    moved = trainer.model.state_dict()
    assert any(not torch.equal(weights[name], moved[name]) for name in weights)
    assert all(torch.isfinite(weight).all() for weight in moved.values())


def test_twenty_steps_awaited(reference_url: str, tmp_path: Path) -> None:
    reward = AsyncReward("reference@1", on_failure="none", url=reference_url)
    trainer, logged = trained(tmp_path, reward)
    asyncio.run_coroutine_threadsafe(reward.aclose(), trainer.async_loop).result(30)
    assert trainer.state.global_step == STEPS
    scores = told(reference_url, "reference@1", logged)
    assert all(map(agrees, logged["assay_reference_v1"], scores))
    assert len({score for score in scores if score is not None}) > 1


@only_nightly
@pytest.mark.weights
def test_a_run_that_wants_every_reward_stops_at_the_first_that_is_missing(
    code_url: str, tmp_path: Path
) -> None:
    reward = Reward("code@2", on_failure="raise", url=code_url)
    with pytest.raises(ItemFailedError, match="input_too_long"):
        trained(tmp_path, reward)
    reward.close()
