"""GRPO with TRL and a reward from Assay, instead of `reward_funcs="my-org/my-reward-model"`."""

from datasets import load_dataset
from trl import GRPOConfig, GRPOTrainer

from assay_client.trainers.trl import Reward

trainer = GRPOTrainer(
    model="Qwen/Qwen2.5-Coder-0.5B-Instruct",
    reward_funcs=[Reward("code@2", on_failure="none", url="http://127.0.0.1:8000", run="exp-17")],
    args=GRPOConfig(output_dir="out", num_generations=8, per_device_train_batch_size=8),
    train_dataset=load_dataset("json", data_files="prompts.jsonl", split="train"),
)
trainer.train()
