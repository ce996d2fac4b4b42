"""Tokenization: one BOS, Assay's own truncation, and a key for every sequence."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.checkpoints import (
    DECODERS,
    ENCODERS,
    KINDS,
    Classifiers,
    Kind,
    build_checkpoint,
    load_classifier,
)
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from assay_models.base import ItemError, Truncation
from assay_models.card import CardError
from assay_models.families.classifier.tokenization import SpecialTokens
from assay_models.families.classifier.truncation import split_excess, truncate
from assay_models.items import Message

pytestmark = pytest.mark.weights

TRUNCATIONS = ("left", "right", "middle")


def chat(*contents: str) -> list[Message]:
    roles = ("user", "assistant")
    return [
        Message(role=roles[index % 2], content=content) for index, content in enumerate(contents)
    ]


@pytest.mark.parametrize("special", ["literal", "parse"])
def test_a_text_that_starts_with_bos_gets_no_second_one(
    classifiers: Classifiers, special: SpecialTokens
) -> None:
    classifier = classifiers["llama"]
    bos = classifier.tokenizer.bos_token_id
    with_bos = classifier.encode_text("<s>the ring", None, "error", special)
    without = classifier.encode_text("the ring", None, "error", special)
    assert with_bos.ids == without.ids
    assert with_bos.ids.count(bos) == 1
    assert with_bos.ids[0] == bos


@pytest.mark.parametrize("kind", sorted(ENCODERS))
def test_a_text_that_starts_with_cls_gets_no_second_one(
    classifiers: Classifiers, kind: Kind
) -> None:
    classifier = classifiers[kind]
    with_cls = classifier.encode_text("[CLS]the ring", "and more", "error", "parse")
    assert with_cls.ids == classifier.encode_text("the ring", "and more", "error").ids
    assert with_cls.ids.count(classifier.tokenizer.cls_token_id) == 1


def test_a_pair_and_a_conversation_have_one_bos(classifiers: Classifiers) -> None:
    classifier = classifiers["llama"]
    bos = classifier.tokenizer.bos_token_id
    assert classifier.encode_text("one", "two", "error").ids.count(bos) == 1
    ids = classifier.encode_chat(chat("one", "two"), "error").ids
    assert ids[0] == bos
    assert ids.count(bos) == 1


def test_a_tokenizer_without_bos_gets_none(classifiers: Classifiers) -> None:
    classifier = classifiers["qwen3"]
    plain = classifier.tokenizer("the ring")["input_ids"]
    assert list(classifier.encode_text("the ring", None, "error").ids) == plain


@pytest.mark.parametrize("kind", sorted(DECODERS))
def test_special_tokens_in_a_message_are_encoded_as_letters(
    classifiers: Classifiers, kind: Kind
) -> None:
    classifier = classifiers[kind]
    eos = classifier.tokenizer.eos_token
    honest = classifier.encode_chat(chat("Hi", "No"), "error").ids
    forged = classifier.encode_chat(chat("Hi", f"No{eos}"), "error").ids
    end = classifier.tokenizer.eos_token_id
    assert forged.count(end) == honest.count(end) == 2
    assert len(forged) > len(honest)


@pytest.mark.parametrize("kind", sorted(DECODERS))
def test_think_tags_in_a_message_stay_tokens_by_default(tmp_path: Path, kind: Kind) -> None:
    classifier = load_classifier(build_checkpoint(kind, tmp_path))
    tokenizer = classifier.tokenizer
    messages = chat("a", "<think>b</think>c", "d", "<think>e</think>f")
    ids = classifier.encode_chat(messages, "error").ids
    plain = tokenizer.apply_chat_template(
        [message.model_dump() for message in messages], return_dict=False
    )
    assert list(ids) == plain
    assert ids.count(tokenizer.convert_tokens_to_ids("</think>")) == 1


def test_the_error_of_a_long_text_names_the_limit_and_quotes_no_text(
    classifiers: Classifiers,
) -> None:
    for classifier in classifiers.values():
        with pytest.raises(ItemError) as caught:
            classifier.encode_text("secret " * 100, None, "error")
        assert caught.value.code == "input_too_long"
        assert "40" in caught.value.detail
        assert "options.truncation to left, right or middle" in caught.value.detail
        assert "secret" not in caught.value.detail


@pytest.mark.parametrize("truncation", TRUNCATIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_truncation_counts_the_cut_tokens_and_keeps_special_tokens(
    classifiers: Classifiers, kind: Kind, truncation: Truncation
) -> None:
    classifier = classifiers[kind]
    text = " ".join(f"word{number}" for number in range(50))
    whole = classifier.tokenizer(text)["input_ids"]
    sequence = classifier.encode_text(text, None, truncation)
    assert len(sequence.ids) == 40
    assert sequence.truncated == len(whole) - 40
    assert sequence.flags == ("truncated",)
    assert sequence.details == {"truncated_tokens": sequence.truncated}
    special = classifier.tokenizer.num_special_tokens_to_add(pair=False)
    head = {0: 0, 1: 1, 2: 1}[special]
    tail = special - head
    body, kept = whole[head : len(whole) - tail], list(sequence.ids[head : 40 - tail])
    half = len(kept) // 2
    assert list(sequence.ids[:head]) == whole[:head]
    assert list(sequence.ids[40 - tail :]) == whole[len(whole) - tail :]
    expected = {
        "left": body[-len(kept) :],
        "right": body[: len(kept)],
        "middle": body[: len(kept) - half] + body[len(body) - half :],
    }
    assert kept == expected[truncation]


def test_truncation_of_a_pair_cuts_the_longer_text_first(classifiers: Classifiers) -> None:
    classifier = classifiers["bert"]
    tokenizer = classifier.tokenizer
    first, second = "a " * 60, "b " * 10
    for pair in ((first, second), (second, first)):
        sequence = classifier.encode_text(*pair, "right")
        assert sequence.ids.count(tokenizer.convert_tokens_to_ids("b")) == 10
        assert sequence.ids.count(tokenizer.convert_tokens_to_ids("a")) == 40 - 3 - 10
        assert sequence.ids.count(tokenizer.sep_token_id) == 2
        kinds = tokenizer(*pair, truncation=True, max_length=40)["token_type_ids"]
        assert sequence.type_ids is not None
        assert list(sequence.type_ids) == kinds


@settings(derandomize=True)
@given(st.integers(0, 60), st.integers(0, 60), st.data())
def test_split_excess_adds_up_and_balances_both_texts(
    first: int, second: int, data: st.DataObject
) -> None:
    excess = data.draw(st.integers(0, first + second))
    shares = split_excess(first, second, excess)
    assert sum(shares) == excess
    assert 0 <= shares[0] <= first
    assert 0 <= shares[1] <= second
    if all(shares):
        assert abs((first - shares[0]) - (second - shares[1])) <= 1


@settings(derandomize=True)
@given(st.integers(0, 30), st.data(), st.sampled_from(TRUNCATIONS))
def test_truncate_keeps_the_order_and_the_right_number_of_positions(
    length: int, data: st.DataObject, truncation: Truncation
) -> None:
    excess = data.draw(st.integers(0, length))
    kept = list(truncate(range(length), excess, truncation))
    assert len(kept) == length - excess
    assert kept == sorted(set(kept))


@pytest.mark.parametrize("truncation", TRUNCATIONS)
@pytest.mark.parametrize("kind", sorted(DECODERS))
def test_a_long_conversation_keeps_bos_and_the_closing_tokens(
    classifiers: Classifiers, kind: Kind, truncation: Truncation
) -> None:
    classifier = classifiers[kind]
    messages = chat("start " + "x " * 60, "y " * 60 + "finish")
    sequence = classifier.encode_chat(messages, truncation)
    tokenizer = classifier.tokenizer
    whole = tokenizer.apply_chat_template(
        [message.model_dump() for message in messages], return_dict=False
    )
    closing = tokenizer(f"{tokenizer.eos_token}\n", add_special_tokens=False)["input_ids"]
    head = 1 if kind == "llama" else 0
    assert len(sequence.ids) == 40
    assert sequence.truncated == len(whole) - 40
    assert list(sequence.ids[:head]) == whole[:head]
    assert list(sequence.ids[-2:]) == closing
    text = tokenizer.decode(list(sequence.ids))
    assert ("start" in text) == (truncation != "left")
    assert ("finish" in text) == (truncation != "right")


def test_a_conversation_that_the_template_refuses_is_an_item_error(
    classifiers: Classifiers,
) -> None:
    messages = [Message(role="tool", content="secret")]
    with pytest.raises(ItemError, match="the roles and their order") as caught:
        classifiers["qwen3"].encode_chat(messages, "error")
    assert caught.value.code == "invalid_item"


def test_a_conversation_without_a_chat_template_is_an_item_error(classifiers: Classifiers) -> None:
    with pytest.raises(ItemError, match="no chat template"):
        classifiers["bert"].encode_chat(chat("a", "b"), "error")


def test_a_card_can_give_an_encoder_a_chat_template(tmp_path: Path) -> None:
    folder = build_checkpoint("bert", tmp_path, options={"chat_template": "own.jinja"})
    template = "[CLS]{% for m in messages %}{{ m.content }}[SEP]{% endfor %}"
    (folder / "own.jinja").write_text(template)
    classifier = load_classifier(folder)
    sequence = classifier.encode_chat(chat("ab [SEP]", "cd"), "error")
    tokens = classifier.tokenizer.convert_ids_to_tokens(sequence.ids)
    assert (tokens[0], tokens[-1], tokens.count("[SEP]")) == ("[CLS]", "[SEP]", 2)
    assert sequence.type_ids is not None
    assert list(sequence.type_ids) == [0] * len(tokens)


def test_a_text_without_tokens_is_an_item_error(classifiers: Classifiers) -> None:
    with pytest.raises(ItemError, match="no tokens") as caught:
        classifiers["qwen3"].encode_text("", None, "error")
    assert caught.value.code == "invalid_item"
    assert classifiers["bert"].encode_text("", None, "error").ids


def test_a_lone_surrogate_is_an_item_error(classifiers: Classifiers) -> None:
    for classifier in classifiers.values():
        with pytest.raises(ItemError, match="Unicode"):
            classifier.encode_text("half \ud83d", None, "error")


@pytest.mark.parametrize("kind", KINDS)
def test_lengths_and_padding_in_the_tokenizers_own_files_are_switched_off(
    tmp_path: Path, kind: Kind
) -> None:
    folder = build_checkpoint(kind, tmp_path, pad="own")
    path = folder / "weights" / "tokenizer.json"
    backend = Tokenizer.from_file(str(path))
    backend.enable_truncation(8)
    backend.enable_padding(length=16)
    backend.save(str(path))
    settings_of = json.loads(path.read_text())
    assert settings_of["truncation"]
    assert settings_of["padding"]
    classifier = load_classifier(folder)
    text = "the ring and the string and the wing and the spring"
    for special in ("literal", "parse"):
        ids = list(classifier.encode_text(text, None, "error", special).ids)
        plain = AutoTokenizer.from_pretrained(folder / "weights")
        assert ids == plain(text)["input_ids"]
        assert len(ids) > 8
    assert len(classifier.encode_text("a", None, "error").ids) < 8


def test_keys_are_equal_exactly_where_the_ids_are(classifiers: Classifiers) -> None:
    for classifier in classifiers.values():
        texts = ["one", "one ", "the", "t h e", "onetwo", "one two", "one", "the"]
        pairs: list[tuple[str, str | None]] = [(text, None) for text in texts]
        pairs += [("one", "two"), ("onet", "wo")]
        sequences = [classifier.encode_text(*pair, "error") for pair in pairs]
        by_ids = {(tuple(row.ids), tuple(row.type_ids or ())) for row in sequences}
        assert len({row.input().key for row in sequences}) == len(by_ids)
        for row in sequences:
            assert row.input().tokens == len(row.ids)
            again = [other.input().key for other in sequences if other == row]
            assert set(again) == {row.input().key}


def test_many_threads_get_the_ids_that_one_thread_gets(classifiers: Classifiers) -> None:
    classifier = classifiers["llama"]
    texts = [f"the {number} </s> thing" for number in range(200)]

    def ids(text: str) -> tuple[Sequence[int], ...]:
        messages = chat(text, "yes")
        return (
            classifier.encode_text(text, None, "error").ids,
            classifier.encode_text(text, None, "error", "parse").ids,
            classifier.encode_chat(messages, "right").ids,
        )

    expected = [ids(text) for text in texts]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ids, texts)) == expected


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    folder = build_checkpoint("bert", tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / "weights" / name).unlink()
    with pytest.raises(CardError, match=r"no tokenizer\.json"):
        load_classifier(folder)


def test_a_token_without_an_embedding_is_an_item_error(tmp_path: Path) -> None:
    folder = build_checkpoint("llama", tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(folder / "weights")
    tokenizer.add_tokens(["<late>"])
    tokenizer.save_pretrained(folder / "weights")
    classifier = load_classifier(folder)
    with pytest.raises(ItemError, match="no embedding"):
        classifier.encode_text("it came <late>", None, "error", "parse")
    assert classifier.encode_text("it came late", None, "error").ids


UNICODE = st.one_of(
    st.text(max_size=80),
    st.text(st.characters(exclude_categories=()), max_size=20),
    st.lists(
        st.sampled_from(
            ["<s>", "</s>", "[CLS]", "[SEP]", "<|im_end|>", "\x00", "\u200d", " ", "a"]
        ),
        max_size=12,
    ).map("".join),
)


def unchecked(*contents: str) -> list[Message]:
    return [Message.model_construct(role="user", content=content) for content in contents]


@settings(
    derandomize=True, max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
@given(text=UNICODE, other=UNICODE, truncation=st.sampled_from(["error", *TRUNCATIONS]))
@pytest.mark.parametrize("kind", KINDS)
def test_any_text_is_encoded_or_an_item_error(
    classifiers: Classifiers, kind: Kind, text: str, other: str, truncation: Truncation
) -> None:
    classifier = classifiers[kind]
    attempts = [
        lambda: classifier.encode_text(text, None, truncation),
        lambda: classifier.encode_text(text, other, truncation, "parse"),
        lambda: classifier.encode_chat(unchecked(text, other), truncation),
    ]
    for attempt in attempts:
        try:
            sequence = attempt()
        except ItemError as error:
            assert error.code in {"invalid_item", "input_too_long"}  # noqa: PT017
        else:
            assert 1 <= len(sequence.ids) <= 40
            assert sequence.input().tokens == len(sequence.ids)
