"""Thoughts of a response: their places, for programs and for claims alike."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_models.extraction import extract
from assay_models.extraction.solution import find_solution
from assay_models.extraction.verdict import SyntaxVerdict
from assay_models.families.nli.claims import split_claims
from assay_models.thoughts import thoughts

PROGRAM = "```python\ndef add(a, b):\n    return a + b\n```"
ANSWER = "The ferry leaves at nine."
ANALYSIS = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant"
COMMENTARY = "<|channel|>commentary<|message|>So.<|end|><|start|>assistant"
FINAL = "<|channel|>final<|message|>"
CLOSED = {
    "tags": "<think>Hm.</think>",
    "upper case": "<THINK>Hm.</THINK>",
    "analysis": "<analysis>Hm.</analysis>",
    "reason": "<reason>Hm.</reason>",
    "attributes": '<think time="3">Hm.</think >',
    "tokens of a thought": "<|begin_of_thought|>Hm.<|end_of_thought|>",
    "tokens in brackets": "[THINK]Hm.[/THINK]",
    "tokens in diamonds": "\u25c1think\u25b7Hm.\u25c1/think\u25b7",
    "tokens in capitals": "<|START_THINKING|>Hm.<|END_THINKING|>",
    "channel": f"{ANALYSIS}{FINAL}",
    "channels": f"{ANALYSIS}{COMMENTARY}{FINAL}",
    "opened by the prompt": "Hm.\n</think>",
    "channel opened by the prompt": f"Hm.<|end|><|start|>assistant{FINAL}",
    "stray end of another name": "<think>Hm.</thinking> So.</think>",
    "end of another name alone": "<think>Hm.</thinking>",
    "a thought inside": "<think>Hm.<think>So.</think>Yes.</think>",
    "two thoughts": "<think>Hm.</think><reasoning>So.</reasoning>",
    "an open fence": "<think>\n```\nx = 1\n</think>",
    "carriage returns": "Hm.\r</think>\r",
    "quoted end": '<think>They say "add"</think>\n',
    "apostrophe at the end": "<think>Call it 'add'</think>\n",
    "code at the end": "<think>Call it `add`</think>\n",
    "a fence at the end": "<think>\n```\nx = 1\n```</think>\n",
    "channel that ends with code": f"{ANALYSIS.replace('Hm.', 'Use `add`')}{FINAL}",
}
OPEN = ("<think>Hm.", "<reason>\nHm.", "> <analysis>Hm.", "<|channel|>analysis<|message|>Hm.")
TEXT = (
    "The tag `</think>` ends a thought.",
    "The tag '<think>' opens a thought, and '</think>' ends it.",
    "The tag <think> opens a thought.",
    "It prints\n```\n<think>\na\n</think>\n```",
    "The ferry leaves at nine.<|end|>",
    "The ferry leaves at nine.\n</think>",
    "The ferry leaves at nine.\n</think><|im_end|>\n",
    'Solution: ```python\nre.sub(r"<think>.*?</think>", "", s)\n```\nDone.',
    '1. ```python\n   re.sub(r"<think>.*?</think>", "", s)\n   ```\nDone.',
    "```python\nt = '''\n</think>\n'''\n```\nDone.".replace("\\'", "'"),
    'x = s.split("a</think>b")\nprint(x)',
)


def outside(text: str) -> str:
    kept, reached = "", 0
    for start, end in thoughts(text)[0]:
        kept, reached = kept + text[reached:start], end
    return kept + text[reached:]


@pytest.mark.parametrize("name", CLOSED)
def test_a_thought_is_no_part_of_a_program_or_of_a_claim(name: str) -> None:
    response = CLOSED[name] + ANSWER
    assert outside(response).strip() == ANSWER
    assert thoughts(response)[1] is False
    split = split_claims(response)
    assert (split.answer, [claim.text for claim in split.claims]) == (ANSWER, [ANSWER])
    seen: list[str] = []

    def check(code: str, candidates: object) -> SyntaxVerdict:
        seen.append(code)
        return SyntaxVerdict("ok", "python")

    found = find_solution(response, None, ("python",), frozenset(), check, 1_000)
    assert (found.code, seen) == (ANSWER, [ANSWER])


@pytest.mark.parametrize("thought", OPEN)
def test_a_thought_that_is_not_closed_lasts_to_the_end(thought: str) -> None:
    response = f"{ANSWER}\n{thought}\n"
    assert thoughts(response) == ([(len(ANSWER) + 1, len(response))], True)
    assert [claim.text for claim in split_claims(response).claims] == [ANSWER]


@pytest.mark.parametrize("text", TEXT)
def test_a_tag_that_is_written_about_is_text(text: str) -> None:
    assert thoughts(text) == ([], False)


PARTS = ("<think>", "</think>", "</thinking>", "<reason>", "[THINK]", "[/THINK]", "<|end|>")
TEXTS = st.lists(
    st.sampled_from((*PARTS, "```\n", "> ", "\n", "\r\n", "\r", "`", "a ")), max_size=20
)


@given(TEXTS.map("".join))
def test_thoughts_are_in_order_and_disjoint(text: str) -> None:
    spans, is_open = thoughts(text)
    assert all(0 <= start < end <= len(text) for start, end in spans)
    assert all(before[1] <= after[0] for before, after in pairwise(spans))
    assert not is_open or spans[-1][1] == len(text)


@pytest.mark.parametrize(
    "unit",
    ["<think>", "</think>", "a <think>", "<think ", "> ", " ", "`", "```\n", "<think>\n</x>"],
)
def test_thoughts_of_any_text_are_found_in_one_pass(unit: str) -> None:
    text = unit * (1_000_000 // len(unit))
    assert all(before[1] <= after[0] for before, after in pairwise(thoughts(text)[0]))


@pytest.mark.parametrize("name", CLOSED)
def test_a_program_right_behind_a_thought_is_found(name: str) -> None:
    assert extract(CLOSED[name] + "\n" + PROGRAM, "solution").code is not None
    if not CLOSED[name].endswith("\r"):
        assert extract(CLOSED[name] + PROGRAM, "solution").code is not None


@pytest.mark.parametrize("end", ["<|end|>", "\n</think>", "\n</s>", "<|im_end|>\n"])
def test_end_tokens_change_neither_a_program_nor_a_claim(end: str) -> None:
    assert extract(PROGRAM + end, "solution").code == extract(PROGRAM, "solution").code
    claims = [claim.text for claim in split_claims(ANSWER + end).claims]
    assert claims == [claim.text for claim in split_claims(ANSWER).claims]


@pytest.mark.parametrize("hidden", ["\ufeff", "\u200b", "\u200b\ufeff"])
def test_hidden_characters_before_a_fence_or_a_program_are_left_out(hidden: str) -> None:
    plain = extract(PROGRAM, "solution").code
    assert extract(hidden + PROGRAM, "solution").code == plain
    assert extract(PROGRAM.replace("def", f"{hidden}def", 1), "solution").code == plain
