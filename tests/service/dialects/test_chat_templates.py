"""Messages parsed from a rendered text, and the special tokens around it."""

import pytest

from assay.api.dialects._chat_templates import (
    parse_messages,
    strip_leading_tokens,
    strip_trailing_tokens,
)


@pytest.mark.parametrize(
    ("text", "stripped"),
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
def test_tokens_after_a_message_are_stripped(text: str, stripped: str) -> None:
    assert strip_trailing_tokens(text) == stripped


@pytest.mark.parametrize(
    ("text", "stripped"),
    [("<s>a", "a"), ("<pad><pad><bos>a<s>", "a<s>"), (" <s>a", " <s>a"), ("", "")],
)
def test_tokens_before_a_sequence_are_stripped(text: str, stripped: str) -> None:
    assert strip_leading_tokens(text) == stripped


def test_a_million_tokens_are_stripped_in_linear_time() -> None:
    count = 1_000_000
    assert strip_trailing_tokens("a" + "</s> " * count) == "a"
    assert strip_trailing_tokens("a" + " " * count + "b") == "a" + " " * count + "b"
    assert strip_trailing_tokens(" " * count) == " " * count
    assert strip_leading_tokens("<pad>" * count + "a") == "a"


@pytest.mark.parametrize(
    ("text", "messages"),
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
def test_messages_are_parsed_from_a_rendered_text(
    text: str, messages: list[dict[str, str]] | None
) -> None:
    assert parse_messages(text) == messages
