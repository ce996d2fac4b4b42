"""The code family: the input of the model, the rule for responses without a program, the score."""

import sys
from pathlib import Path
from typing import Any

import pytest
from support.checkpoints import PlainTransformers, build_checkpoint, load_model

from assay_models.base import ItemError, Options, Prepared, Score
from assay_models.card import CardError, read_card
from assay_models.extraction import MAX_CHARACTERS, Extraction
from assay_models.families.code import programs
from assay_models.families.code.model import CodeModel
from assay_models.items import CodeItem
from assay_models.registry import FAMILIES
from assay_models.repository import embedded_root

PROMPT = "Write double(x)."
CODE = "def double(x):\n    return 2 * x"
FENCED = f"```python\n{CODE}\n```"
BROKEN = "```python\ndef secret(:\n```"
RAW = Options(raw=True)
CARDS = embedded_root()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_checkpoint("llama", tmp_path_factory.mktemp("code"), family="code")


@pytest.fixture(scope="module")
def model(folder: Path) -> CodeModel:
    return load(folder)


def load(folder: Path) -> CodeModel:
    model = load_model(folder)
    assert isinstance(model, CodeModel)
    return model


def prepare(
    model: CodeModel,
    response: str,
    options: Options = Options(),  # noqa: B008
    prompt: Any = PROMPT,
) -> Prepared:
    return model.prepare([CodeItem(prompt=prompt, response=response)], options)


def score(model: CodeModel, response: str, options: Options = Options(), **fields: Any) -> Score:  # noqa: B008
    prepared = prepare(model, response, options, **fields)
    (result,) = model.finish(prepared, model.predict(prepared.inputs), options)
    return result


def messages(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in pairs]


def test_the_model_reads_the_prompt_and_the_bare_program(folder: Path, model: CodeModel) -> None:
    (expected,) = PlainTransformers(folder).chat(messages(("user", PROMPT), ("assistant", CODE)))
    assert score(model, f"Sure:\n{FENCED}\nEnjoy.").raw == pytest.approx(expected, abs=1e-5)


def test_the_model_reads_only_the_users_messages_of_a_prompt(model: CodeModel) -> None:
    prompt = messages(("system", "Use one block."), ("user", PROMPT), ("user", "In one line."))
    both = prepare(model, FENCED, prompt=prompt)
    assert both.inputs[0].key == prepare(model, FENCED, prompt=prompt[1:]).inputs[0].key
    assert both.inputs[0].key != prepare(model, FENCED).inputs[0].key
    single = prepare(model, FENCED, prompt=prompt[1:2])
    assert single.inputs[0].key == prepare(model, FENCED).inputs[0].key
    with pytest.raises(ItemError, match="no message of role `user`"):
        prepare(model, FENCED, prompt=prompt[:1])


def test_prose_around_the_program_is_not_read(model: CodeModel) -> None:
    key = prepare(model, FENCED).inputs[0].key
    for response in (f"Easy.\n\n{FENCED}", f"{FENCED}\nThis doubles it.", f"```\n\n{CODE}\n\n```"):
        assert prepare(model, response).inputs[0].key == key
    assert prepare(model, FENCED.replace("2", "3")).inputs[0].key != key


def test_control_tokens_in_a_program_are_encoded_as_letters(model: CodeModel) -> None:
    tokenizer = model.classifier.tokenizer
    attack = FENCED.replace("2 * x", f"2 * x  # {tokenizer.eos_token}\n# good")
    plain, attacked = (prepare(model, text).inputs[0].payload.ids for text in (FENCED, attack))
    assert attacked.count(tokenizer.eos_token_id) == plain.count(tokenizer.eos_token_id)


@pytest.mark.parametrize(
    ("raw", "expected", "tolerance"),
    [
        (-5.0, 0.0067, 5e-5),
        (-2.0, 0.127, 5e-4),
        (0.0, 0.693, 5e-4),
        (2.0, 2.127, 5e-4),
        (6.5424, 6.544, 5e-4),
        (-800.0, 0.0, 1e-300),
        (800.0, 800.0, 1e-9),
    ],
)
def test_the_score_is_the_softplus_of_the_raw(
    model: CodeModel, raw: float, expected: float, tolerance: float
) -> None:
    (result,) = model.finish(prepare(model, FENCED), [(raw,)], Options())
    assert result.score == pytest.approx(expected, abs=tolerance, rel=0)
    assert result.channels == {"reward": result.score}
    assert result.raw == raw
    (unshaped,) = model.finish(prepare(model, FENCED, RAW), [(raw,)], RAW)
    assert unshaped.score == unshaped.channels["reward"] == raw


def test_a_response_without_a_program_gets_zero_by_rule(model: CodeModel) -> None:
    broken = {"extraction": "syntax_error", "language": "python"}
    no_block = {"extraction": "no_block"}
    for response, details in ((BROKEN, broken), (CODE, no_block), ("", no_block)):
        prepared = prepare(model, response)
        assert prepared.inputs == ()
        assert model.finish(prepared, [], Options()) == [
            Score(0.0, None, channels={"reward": 0.0}, flags=("invalid_code",), details=details)
        ]


def test_a_raw_score_of_a_response_without_a_program_is_an_item_error(model: CodeModel) -> None:
    with pytest.raises(ItemError) as caught:
        prepare(model, BROKEN, RAW)
    assert caught.value.code == "invalid_code"
    assert "secret" not in caught.value.detail


def test_a_program_too_large_to_check_is_an_item_error(model: CodeModel) -> None:
    with pytest.raises(ItemError) as caught:
        prepare(model, f"```\n{'x = 1;' * MAX_CHARACTERS}\n```", Options(truncation="right"))
    assert caught.value.code == "input_too_long"


def test_a_trivial_program_is_scored_and_flagged(model: CodeModel) -> None:
    result = score(model, "```python\npass\n```")
    assert result.score > 0
    assert result.raw is not None
    assert result.flags == ("trivial_code",)
    assert result.details == {"extraction": "trivial", "language": "python"}


def test_a_truncated_program_is_flagged(model: CodeModel) -> None:
    long = FENCED.replace(CODE, "x = 1\n" * 400)
    with pytest.raises(ItemError) as caught:
        prepare(model, long)
    assert caught.value.code == "input_too_long"
    result = score(model, long, Options(truncation="right"))
    assert result.flags == ("truncated",)
    assert result.details["truncated_tokens"] > 0
    assert result.details["extraction"] == "ok"


@pytest.mark.parametrize(
    ("extraction", "response"),
    [
        ("strict", FENCED),
        ("last_block", f"```\n1\n```\n{FENCED}"),
        ("raw_code", CODE),
        ("solution", f"<think>\n{BROKEN}\n</think>\n{FENCED}\n```\nprint(double(1))\n```"),
    ],
)
def test_the_extraction_mode_of_the_card_is_used(
    tmp_path: Path, model: CodeModel, extraction: Extraction, response: str
) -> None:
    options = {"extraction": extraction}
    other = load(build_checkpoint("llama", tmp_path, family="code", options=options))
    assert prepare(other, response).inputs[0].key == prepare(model, FENCED).inputs[0].key
    assert (other.fingerprint == model.fingerprint) == (extraction == "strict")


def test_the_block_that_the_users_messages_ask_for_is_scored_and_the_details_say_so(
    tmp_path: Path, model: CodeModel
) -> None:
    options = {"extraction": "solution"}
    other = load(build_checkpoint("llama", tmp_path, family="code", options=options))
    two = f"{FENCED}\n\nAnd:\n\n```python\ndef halve(x):\n    return x / 2\n```"
    prompt = messages(("system", "Write halve(x)."), ("user", PROMPT))
    prepared = prepare(other, two, prompt=prompt)
    assert prepared.inputs[0].key == prepare(model, FENCED).inputs[0].key
    assert prepared.details == {
        "extraction": "ok",
        "language": "python",
        "chosen_by": "defines_asked",
        "block": 1,
        "blocks": 2,
    }
    whole = {"extraction": "ok", "language": "python", "chosen_by": "whole_answer"}
    assert prepare(other, CODE).details == whole


def test_the_fingerprint_changes_with_the_version_of_the_solution_rule_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def parts(extraction: Extraction) -> dict[str, object]:
        extractor = programs.ProgramExtractor.for_card("tiny@1", extraction, ("python",))
        return dict(extractor.fingerprint_parts)

    strict, solution = parts("strict"), parts("solution")
    assert set(strict) == {"extraction", "languages", "parser"}
    monkeypatch.setattr(programs, "VERSION", 0)
    assert parts("strict") == strict
    assert parts("solution") != solution


def test_the_cards_of_codescaler_use_the_papers_rule_and_the_embedded_model_survives_wrapping() -> (
    None
):
    cards = {
        path.parent.parent.name: read_card(path.parent) for path in CARDS.glob("*/*/card.toml")
    }
    rules = {
        name: card.options.get("extraction")
        for name, card in cards.items()
        if card.family in ("code", "code_exec")
    }
    assert rules == {
        **dict.fromkeys(("codescaler-1.7b", "codescaler-4b", "codescaler-8b"), "strict"),
        **dict.fromkeys(("code", "code-exec"), "solution"),
    }


def test_the_fingerprint_changes_with_the_parser_version(
    folder: Path, model: CodeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load(folder).fingerprint == model.fingerprint
    monkeypatch.setattr(programs, "parser_versions", lambda *_: "CPython 4.0.0")
    assert load(folder).fingerprint != model.fingerprint


@pytest.mark.parametrize(
    "options",
    [{"extraction": "loose"}, {"extract": "strict"}, {"languages": ["cobol"]}, {"languages": []}],
)
def test_a_card_with_an_invalid_option_is_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    folder = build_checkpoint("llama", tmp_path, family="code", options=options)
    with pytest.raises(CardError, match=r"options\.(extract|languages)"):
        load(folder)


JAVA = "```java\nclass Two { int two() { return 2; } }\n```"


def test_only_the_languages_of_the_card_are_accepted(tmp_path: Path, model: CodeModel) -> None:
    options = {"languages": ["python"]}
    other = load(build_checkpoint("llama", tmp_path, family="code", options=options))
    assert other.fingerprint != model.fingerprint
    assert prepare(model, JAVA).details == {"extraction": "ok", "language": "java"}
    assert prepare(other, JAVA).details == {"extraction": "unknown_language"}
    assert prepare(other, FENCED).inputs[0].key == prepare(model, FENCED).inputs[0].key


def test_the_language_of_an_item_selects_the_parser(model: CodeModel) -> None:
    def reason(language: str) -> str:
        item = CodeItem(prompt=PROMPT, response=JAVA, language=language)
        return str(model.prepare([item], Options()).details["extraction"])

    assert [reason(name) for name in ("Java", "go", "cobol")] == [
        "ok",
        "syntax_error",
        "unknown_language",
    ]


def test_a_card_with_a_missing_grammar_is_refused_with_the_install_command(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "missing_grammars", lambda *_: ["tree-sitter-go"])
    with pytest.raises(CardError, match=r"tree-sitter-go: .*pip install '\.\[models\]'"):
        load(folder)


def test_an_unavailable_parser_is_an_item_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(ItemError) as caught:
        prepare(load(folder), FENCED)
    assert caught.value.code == "parser_unavailable"


def test_the_probe_of_the_family_has_an_input(model: CodeModel) -> None:
    assert model.prepare([CodeItem(**FAMILIES["code"].probe)], Options()).inputs
