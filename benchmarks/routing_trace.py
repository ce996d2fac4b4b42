"""Traces of GRPO steps: groups of completions of one prompt, each sent as a request of its own."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from assay_models.base import Input

GROUP_SIZE = 8


@dataclass(frozen=True, kw_only=True)
class TraceConfig:
    """A training run's requests.

    Each step has `prompts` groups of `group_size` completions, all of which arrive within
    `burst_seconds`; the next step begins `step_seconds` later. Lengths in tokens are log-normal,
    with these medians. A completion equals an earlier one of its group with probability
    `duplicates`. A prompt is one of an earlier step with probability `repeats`.
    """

    steps: int = 6
    prompts: int = 128
    group_size: int = GROUP_SIZE
    step_seconds: float = 6.0
    burst_seconds: float = 1.5
    prompt_tokens: float = 350.0
    response_tokens: float = 500.0
    sigma: float = 0.7
    max_tokens: int = 4_096
    duplicates: float = 0.15
    repeats: float = 0.2


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request: its time in seconds, its prompt, its text, and their tokens."""

    at: float
    prompt: int
    text: int
    prompt_tokens: int
    tokens: int

    def to_input(self) -> Input:
        """Return the prepared item; its payload is the tokens of the prompt."""
        key = self.text.to_bytes(8, "big")
        return Input(key, self.tokens, self.prompt_tokens, self.prompt.to_bytes(8, "big"))


def shared_prefix_cost(inputs: Sequence[Input]) -> int:
    """Return the tokens of a forward pass without padding that computes each prompt once."""
    prompts: dict[bytes, int] = {row.prefix_key: row.payload for row in inputs}
    responses = sum(row.tokens - prompts[row.prefix_key] for row in inputs)
    return responses + sum(prompts.values())


def draw_trace(config: TraceConfig, seed: int) -> list[Arrival]:
    """Draw the requests of a run, in order of arrival; a seed always gives the same."""
    generator = random.Random(seed)  # noqa: S311 nothing is secret here
    lengths: list[int] = []
    texts: list[tuple[int, int]] = []
    answers: dict[int, list[int]] = {}
    arrivals: list[Arrival] = []
    for step in range(config.steps):
        for _ in range(config.prompts):
            prompt = _prompt(config, lengths, generator)
            group: list[int] = []
            for _ in range(config.group_size):
                text = _completion(config, answers.setdefault(prompt, []), generator)
                if text is None:
                    text = len(texts)
                    texts.append((prompt, _length(config.response_tokens, config, generator)))
                    answers[prompt].append(text)
                group.append(text)
            for text in group:
                at = step * config.step_seconds + generator.uniform(0.0, config.burst_seconds)
                total = lengths[prompt] + texts[text][1]
                arrivals.append(Arrival(at, prompt, text, lengths[prompt], total))
    return sorted(arrivals, key=lambda arrival: arrival.at)


def _prompt(config: TraceConfig, lengths: list[int], generator: random.Random) -> int:
    if lengths and generator.random() < config.repeats:
        return generator.randrange(len(lengths))
    lengths.append(_length(config.prompt_tokens, config, generator))
    return len(lengths) - 1


def _completion(
    config: TraceConfig, earlier: Sequence[int], generator: random.Random
) -> int | None:
    """Return an earlier completion of the prompt, or None for a new one."""
    if earlier and generator.random() < config.duplicates:
        return generator.choice(earlier)
    return None


def _length(median: float, config: TraceConfig, generator: random.Random) -> int:
    drawn = round(median * generator.lognormvariate(0.0, config.sigma))
    return min(config.max_tokens, max(16, drawn))
