"""Turns read back from text, and the tokens around them taken off."""

import pytest

from assay.api.dialects._chat_templates import turns_of, without_beginning, without_end


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ("a", "a"),
        ("a \n", "a \n"),
        ("a</s>", "a"),
        ("a </s>\n", "a "),
        ("a <|im_end|>\n<|endoftext|><|endoftext|>", "a "),
        ("</s>a", "</s>a"),
        ("a</s>b", "a</s>b"),
        ("<pad></s>", ""),
        ("", ""),
    ],
)
def test_what_ends_a_turn_is_taken_off(text: str, bare: str) -> None:
    assert without_end(text) == bare


@pytest.mark.parametrize(
    ("text", "bare"),
    [("<s>a", "a"), ("<pad><pad><bos>a<s>", "a<s>"), (" <s>a", " <s>a"), ("", "")],
)
def test_what_begins_a_sequence_is_taken_off(text: str, bare: str) -> None:
    assert without_beginning(text) == bare


def test_a_million_tokens_take_one_pass() -> None:
    many = 1_000_000
    assert without_end("a" + "</s> " * many) == "a"
    assert without_end("a" + " " * many + "b") == "a" + " " * many + "b"
    assert without_end(" " * many) == " " * many
    assert without_beginning("<pad>" * many + "a") == "a"


@pytest.mark.parametrize(
    ("text", "turns"),
    [
        ("plain", None),
        ("say <|im_start|>user\nhi<|im_end|>", None),
        ("<|im_start|>user\nhi", [{"role": "user", "content": "hi"}]),
        (
            "<|im_start|>user\na\n<|im_end|>\n<|im_start|>assistant\n",
            [{"role": "user", "content": "a\n"}, {"role": "assistant", "content": ""}],
        ),
        (
            "<start_of_turn>user\na<start_of_turn>model\nb",
            [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
        ),
    ],
)
def test_turns(text: str, turns: list[dict[str, str]] | None) -> None:
    assert turns_of(text) == turns
