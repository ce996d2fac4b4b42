"""The curriculum of hard prompts."""

import random
from typing import Any

import pytest

from assay_client.curriculum import PromptBuffer, build_bcq, build_ncq, select_hard


def shorten(question: str, answer: str) -> str:
    return answer.upper()


def test_a_buffer_admits_hard_prompts_and_graduates_solved_ones() -> None:
    buffer = PromptBuffer()
    for prompt, accuracy in {"a": 0.0, "b": 0.49, "c": 0.5, "d": None}.items():
        buffer.update(prompt, accuracy)
    assert sorted(map(str, buffer.sample(10))) == ["a", "b"]
    buffer.update("a", 0.25)
    buffer.update("b", 0.5)
    assert "a" in buffer
    assert "b" not in buffer
    stats = buffer.stats()
    assert (stats.size, stats.admitted, stats.graduated, stats.evicted) == (1, 2, 1, 0)


@pytest.mark.parametrize("source", ["bcq", "ncq"])
def test_reformulated_groups_neither_graduate_nor_admit(source: Any) -> None:
    buffer = PromptBuffer()
    buffer.update("a", 0.0)
    buffer.update("a", 1.0, source=source)
    buffer.update("b", 0.0, source=source)
    assert buffer.sample(2) == ["a"]
    assert buffer.stats().graduated == 0


def test_a_full_buffer_evicts_the_oldest_first() -> None:
    buffer = PromptBuffer(capacity=2)
    for prompt in ("a", "b", "a", "c"):  # a second update does not make a prompt newer
        buffer.update(prompt, 0.0)
    assert "a" not in buffer
    assert len(buffer) == 2
    assert buffer.stats().evicted == 1


def test_samples_are_seeded_and_distinct() -> None:
    buffer = PromptBuffer()
    for prompt in range(50):
        buffer.update(prompt, 0.1)
    first = buffer.sample(20, random.Random(4))
    assert first == buffer.sample(20, random.Random(4))
    assert len(set(first)) == 20


def test_select_hard_takes_the_hardest_up_to_the_share() -> None:
    accuracy = [0.4, 0.0, None, 0.25, 0.5, 1.0, 0.0, 0.9]
    assert select_hard("abcdefgh", accuracy) == ["b", "g"]
    assert select_hard("abcdefgh", accuracy, max_frac=1.0) == ["b", "g", "d", "a"]
    assert select_hard([], []) == []


def test_bcq_order_is_seeded_and_balanced() -> None:
    rng, again = random.Random(11), random.Random(11)
    built = [build_bcq("q", "right", "wrong", shorten, rng) for _ in range(1000)]
    assert built == [build_bcq("q", "right", "wrong", shorten, again) for _ in range(1000)]
    firsts = sum(meta["positive_place"] == 0 for _, meta in built)
    assert 450 < firsts < 550
    for prompt, meta in built:
        is_first = prompt.index(meta["positive"]) < prompt.index(meta["negative"])
        assert is_first == (meta["positive_place"] == 0)


def test_bcq_candidates_pass_through_the_same_compressor() -> None:
    calls: list[tuple[str, str]] = []

    def compress(question: str, answer: str) -> str:
        calls.append((question, answer))
        return f"short {answer}"

    prompt, meta = build_bcq("q", "right", "wrong", compress, random.Random(0))
    assert calls == [("q", "right"), ("q", "wrong")]
    assert (meta["positive"], meta["negative"]) == ("short right", "short wrong")
    assert prompt.count("<candidate>\nshort ") == 2


def test_ncq_lists_each_wrong_answer_once_and_every_attempt() -> None:
    prompt, meta = build_ncq("q", [("4", "one"), ("5", "two"), ("4", "three")], shorten)
    assert meta == {"source": "ncq", "wrong_answers": ["4", "5"]}
    assert prompt.count("- 4\n") == 1
    assert [prompt.count(text) for text in ("ONE", "TWO", "THREE")] == [1, 1, 1]


def test_arguments_that_do_not_fit_are_refused() -> None:
    invalid: list[dict[str, Any]] = [{"capacity": 0}, {"admit_below": 0.6}, {"graduate_at": 1.1}]
    for given in invalid:
        with pytest.raises(ValueError, match=next(iter(given))):
            PromptBuffer(**given)
    with pytest.raises(ValueError, match="plain_accuracy"):
        PromptBuffer().update("a", 1.5)
    with pytest.raises(ValueError, match="one value"):
        select_hard("ab", [0.0])
    with pytest.raises(ValueError, match="max_frac"):
        select_hard("a", [0.0], max_frac=2.0)
    with pytest.raises(ValueError, match="at least one"):
        build_ncq("q", [], shorten)
    with pytest.raises(ValueError, match="not empty"):
        build_ncq("q", [("1", " ")], shorten)
    with pytest.raises(ValueError, match="same text"):
        build_bcq("q", "x", "X", shorten, random.Random(0))
