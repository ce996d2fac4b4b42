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
from transformers import PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer

from assay_client import ItemFailedError
from assay_client.advantages import gdpo_advantages
from assay_client.trainers.trl import AsyncReward, Reward

from .conftest import process
from .policies import make_policy, make_tokenizer

STEPS, GROUP, SEED = 20, 4, 7
PROMPTS = ["Return the larger of two numbers.", "Return the last item of a list."]


def fenced(program: str) -> str:
    return f"```python\n{program}\n```\n"


UNANSWERABLE = fenced(f"x = [{'1, ' * 1200}]")
RESPONSES = [
    fenced("def larger(a, b):\n    return max(a, b)"),
    fenced("def larger(a, b):\n    return a if a > b else b"),
    fenced("def last(items):\n    return items[-1]"),
    fenced("def last(items):\n    return items[0]"),
    fenced("def last(items)\n    return items"),
    "I would rather not say.\n",
    UNANSWERABLE,
]

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*deprecated:FutureWarning")]


@pytest.fixture(scope="module")
def code_url() -> Iterator[str]:
    """A server process of the embedded code model."""
    with process(ASSAY_MODELS="code") as url:
        yield url


def train(
    folder: Path, rewards: list[Any], **settings: Any
) -> tuple[GRPOTrainer, pandas.DataFrame]:
    """Train; return the trainer, and its log of completions."""
    tokenizer = make_tokenizer([*PROMPTS, *RESPONSES])
    defaults: dict[str, Any] = {
        "output_dir": str(folder),
        "use_cpu": True,
        "bf16": False,
        "seed": SEED,
        "max_steps": STEPS,
        "per_device_train_batch_size": GROUP,
        "num_generations": GROUP,
        "max_completion_length": 2,
        "learning_rate": 1e-2,
        "logging_steps": 1,
        "log_completions": True,
        "num_completions_to_print": 0,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
    }
    arguments = GRPOConfig(**{**defaults, **settings})
    trainer = GRPOTrainer(
        model=make_policy(tokenizer, SEED),
        reward_funcs=rewards,
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt": PROMPTS * STEPS}),
        processing_class=tokenizer,
    )
    trainer.train()
    tables = sorted(folder.glob("**/completions_*.parquet"))
    return trainer, pandas.concat([pandas.read_parquet(table) for table in tables])


def server_scores(url: str, model: str, logged: pandas.DataFrame) -> list[float | None]:
    """Return the server's scores of the logged completions."""
    items = [
        {"prompt": prompt, "response": completion}
        for prompt, completion in zip(logged["prompt"], logged["completion"], strict=True)
    ]
    answer = httpx2.post(f"{url}/v1/score", json={"model": model, "items": items}, timeout=120)
    return [result["score"] for result in answer.json()["results"]]


def agrees(logged: float, score: float | None) -> bool:
    """Return whether TRL logged this score in single precision, or NaN for None."""
    return math.isnan(logged) if score is None else logged == float(numpy.float32(score))


def advantages_of(scores: list[float | None]) -> list[float]:
    """Compute GRPO's advantages of a group; those without a score have 0."""
    known = [score for score in scores if score is not None]
    if not known:
        return [0.0] * len(scores)
    centre, spread = mean(known), stdev(known) if len(known) > 1 else 0.0
    return [0.0 if score is None else (score - centre) / (spread + 1e-4) for score in scores]


@only_nightly
@pytest.mark.weights
def test_trl_trains_with_the_code_model(code_url: str, tmp_path: Path) -> None:
    reward = Reward("code@2", on_failure="none", url=code_url, run="grpo")
    trainer, logged = train(tmp_path, [reward])
    reward.close()
    assert trainer.state.global_step == STEPS
    assert len(logged) == STEPS * GROUP

    scores = server_scores(code_url, "code@2", logged)
    rewards, advantages = logged["assay_code_v2"].tolist(), logged["advantage"].tolist()
    assert all(map(agrees, rewards, scores))
    missing = [place for place, score in enumerate(scores) if score is None]
    assert missing, "no completion was too long to be scored"
    assert scores.count(0.0), "no completion was without a program"
    assert any(scores), "no completion had a program"
    assert reward.failures.reasons == {"input_too_long": len(missing)}

    for start in range(0, len(scores), GROUP):
        own = advantages[start : start + GROUP]
        assert own == pytest.approx(advantages_of(scores[start : start + GROUP]), abs=1e-3)

    shares = [line["assay/failed"] for line in trainer.state.log_history if "assay/failed" in line]
    assert sum(shares) * GROUP == pytest.approx(len(missing))
    assert isinstance(trainer.processing_class, PreTrainedTokenizerFast)
    assert trainer.model is not None
    weights = make_policy(trainer.processing_class, SEED).state_dict()
    moved = trainer.model.state_dict()
    assert any(not torch.equal(weights[name], moved[name]) for name in weights)
    assert all(torch.isfinite(weight).all() for weight in moved.values())


def test_trl_trains_with_the_asynchronous_reward(reference_url: str, tmp_path: Path) -> None:
    reward = AsyncReward("reference@1", on_failure="none", url=reference_url)
    trainer, logged = train(tmp_path, [reward])
    asyncio.run_coroutine_threadsafe(reward.aclose(), trainer.async_loop).result(30)
    assert trainer.state.global_step == STEPS
    scores = server_scores(reference_url, "reference@1", logged)
    assert all(map(agrees, logged["assay_reference_v1"], scores))
    assert len({score for score in scores if score is not None}) > 1


@only_nightly
@pytest.mark.weights
def test_with_raise_the_run_stops_at_the_first_missing_reward(
    code_url: str, tmp_path: Path
) -> None:
    reward = Reward("code@2", on_failure="raise", url=code_url)
    with pytest.raises(ItemFailedError, match="input_too_long"):
        train(tmp_path, [reward])
    reward.close()


def test_our_advantages_equal_those_of_normalize_then_sum(tmp_path: Path) -> None:
    """Check against the advantages that TRL itself logs, with completions that have no reward."""
    count = 0

    def first(completions: list[str], **_: Any) -> list[float | None]:
        nonlocal count
        count += 1
        return [
            None if (row + count) % 5 == 0 else len(text) % 7
            for row, text in enumerate(completions)
        ]

    def second(completions: list[str], **_: Any) -> list[float | None]:
        return [
            None if (row + count) % 5 < 2 else text.count("e")
            for row, text in enumerate(completions)
        ]

    logged = train(
        tmp_path,
        [first, second],
        multi_objective_aggregation="normalize_then_sum",
        reward_weights=[1.0, 0.5],
        per_device_train_batch_size=2 * GROUP,
        max_steps=4,
    )[1]
    assert len(logged) == 4 * 2 * GROUP
    for start in range(0, len(logged), 2 * GROUP):
        rows = logged.iloc[start : start + 2 * GROUP]
        ours, info = gdpo_advantages(
            rows[["first", "second"]].to_numpy(),
            [row // GROUP for row in range(2 * GROUP)],
            weights=[1.0, 0.5],
            exclude_zero_variance=False,
        )
        assert info.n_null[0] > 0
        assert ours.tolist() == pytest.approx(rows["advantage"].tolist(), abs=1e-4)
