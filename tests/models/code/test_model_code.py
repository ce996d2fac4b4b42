"""The code family: what the model reads, what a rule decides, and what is made of the logit."""

import sys
from pathlib import Path
from typing import Any

import pytest
from support.checkpoints import PlainTransformers, build_checkpoint, load_model

from assay_models.base import ItemError, Options, Prepared, Score
from assay_models.card import CardError
from assay_models.extraction import MAX_CHARACTERS, Extraction
from assay_models.families.code import programs
from assay_models.families.code.model import CodeModel
from assay_models.items import CodeItem
from assay_models.registry import FAMILIES

PROMPT = "Write double(x)."
CODE = "def double(x):\n    return 2 * x"
FENCED = f"```python\n{CODE}\n```"
BROKEN = "```python\ndef secret(:\n```"
RAW = Options(raw=True)


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
    (one,) = model.finish(prepared, model.predict(prepared.inputs), options)
    return one


def turns(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in pairs]


def test_the_model_reads_the_prompt_and_the_bare_program(folder: Path, model: CodeModel) -> None:
    (expected,) = PlainTransformers(folder).chat(turns(("user", PROMPT), ("assistant", CODE)))
    assert score(model, f"Sure:\n{FENCED}\nEnjoy.").raw == pytest.approx(expected, abs=1e-5)


def test_of_messages_it_reads_the_users_turns(model: CodeModel) -> None:
    asked = turns(("system", "Use one block."), ("user", PROMPT), ("user", "In one line."))
    both = prepare(model, FENCED, prompt=asked)
    assert both.inputs[0].key == prepare(model, FENCED, prompt=asked[1:]).inputs[0].key
    assert both.inputs[0].key != prepare(model, FENCED).inputs[0].key
    single = prepare(model, FENCED, prompt=asked[1:2])
    assert single.inputs[0].key == prepare(model, FENCED).inputs[0].key
    with pytest.raises(ItemError, match="no turn of role `user`"):
        prepare(model, FENCED, prompt=asked[:1])


def test_prose_around_the_program_is_not_read(model: CodeModel) -> None:
    key = prepare(model, FENCED).inputs[0].key
    for response in (f"Easy.\n\n{FENCED}", f"{FENCED}\nThis doubles it.", f"```\n\n{CODE}\n\n```"):
        assert prepare(model, response).inputs[0].key == key
    assert prepare(model, FENCED.replace("2", "3")).inputs[0].key != key


def test_control_tokens_in_a_program_stay_letters(model: CodeModel) -> None:
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
def test_shaping(model: CodeModel, raw: float, expected: float, tolerance: float) -> None:
    (one,) = model.finish(prepare(model, FENCED), [(raw,)], Options())
    assert one.score == pytest.approx(expected, abs=tolerance, rel=0)
    assert one.channels == {"reward": one.score}
    assert one.raw == raw
    (unshaped,) = model.finish(prepare(model, FENCED, RAW), [(raw,)], RAW)
    assert unshaped.score == unshaped.channels["reward"] == raw


def test_what_holds_no_program_gets_zero_by_rule(model: CodeModel) -> None:
    broken = {"extraction": "syntax_error", "language": "python"}
    no_block = {"extraction": "no_block"}
    for response, details in ((BROKEN, broken), (CODE, no_block), ("", no_block)):
        prepared = prepare(model, response)
        assert prepared.inputs == ()
        assert model.finish(prepared, [], Options()) == [
            Score(0.0, None, {"reward": 0.0}, ("invalid_code",), details)
        ]


def test_no_raw_score_is_invented_for_what_holds_no_program(model: CodeModel) -> None:
    with pytest.raises(ItemError) as caught:
        prepare(model, BROKEN, RAW)
    assert caught.value.code == "invalid_code"
    assert "secret" not in caught.value.detail


def test_a_program_too_large_to_check_is_an_error_not_a_zero(model: CodeModel) -> None:
    with pytest.raises(ItemError) as caught:
        prepare(model, f"```\n{'x = 1;' * MAX_CHARACTERS}\n```", Options(truncation="right"))
    assert caught.value.code == "input_too_long"


def test_a_trivial_program_is_scored_and_flagged(model: CodeModel) -> None:
    one = score(model, "```python\npass\n```")
    assert one.score > 0
    assert one.raw is not None
    assert one.flags == ("trivial_code",)
    assert one.details == {"extraction": "trivial", "language": "python"}


def test_what_is_cut_is_flagged(model: CodeModel) -> None:
    long = FENCED.replace(CODE, "x = 1\n" * 400)
    with pytest.raises(ItemError) as caught:
        prepare(model, long)
    assert caught.value.code == "input_too_long"
    one = score(model, long, Options(truncation="right"))
    assert one.flags == ("truncated",)
    assert one.details["truncated_tokens"] > 0
    assert one.details["extraction"] == "ok"


@pytest.mark.parametrize(
    ("extraction", "response"),
    [("strict", FENCED), ("last_block", f"```\n1\n```\n{FENCED}"), ("raw_code", CODE)],
)
def test_the_card_says_where_the_program_is(
    tmp_path: Path, model: CodeModel, extraction: Extraction, response: str
) -> None:
    options = {"extraction": extraction}
    other = load(build_checkpoint("llama", tmp_path, family="code", options=options))
    assert prepare(other, response).inputs[0].key == prepare(model, FENCED).inputs[0].key
    assert (other.fingerprint == model.fingerprint) == (extraction == "strict")


def test_the_fingerprint_names_the_parser(
    folder: Path, model: CodeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load(folder).fingerprint == model.fingerprint
    monkeypatch.setattr(programs, "parser_versions", lambda languages: "CPython 4.0.0")
    assert load(folder).fingerprint != model.fingerprint


@pytest.mark.parametrize(
    "options",
    [{"extraction": "loose"}, {"extract": "strict"}, {"languages": ["cobol"]}, {"languages": []}],
)
def test_a_card_with_another_option_is_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    folder = build_checkpoint("llama", tmp_path, family="code", options=options)
    with pytest.raises(CardError, match=r"options\.(extract|languages)"):
        load(folder)


JAVA = "```java\nclass Two { int two() { return 2; } }\n```"


def test_the_card_says_which_languages_are_accepted(tmp_path: Path, model: CodeModel) -> None:
    options = {"languages": ["python"]}
    other = load(build_checkpoint("llama", tmp_path, family="code", options=options))
    assert other.fingerprint != model.fingerprint
    assert prepare(model, JAVA).details == {"extraction": "ok", "language": "java"}
    assert prepare(other, JAVA).details == {"extraction": "unknown_language"}
    assert prepare(other, FENCED).inputs[0].key == prepare(model, FENCED).inputs[0].key


def test_the_items_language_decides_the_parser(model: CodeModel) -> None:
    def reason(language: str) -> str:
        item = CodeItem(prompt=PROMPT, response=JAVA, language=language)
        return str(model.prepare([item], Options()).details["extraction"])

    assert [reason(name) for name in ("Java", "go", "cobol")] == [
        "ok",
        "syntax_error",
        "unknown_language",
    ]


def test_a_grammar_that_is_not_installed_is_told_at_load(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "missing_grammars", lambda languages: ["tree-sitter-go"])
    with pytest.raises(CardError, match=r"tree-sitter-go: pip install 'assay\[models\]'"):
        load(folder)


def test_without_a_parser_the_item_is_an_error_not_a_zero(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(ItemError) as caught:
        prepare(load(folder), FENCED)
    assert caught.value.code == "parser_unavailable"


def test_the_probe_of_the_family_computes(model: CodeModel) -> None:
    assert model.prepare([CodeItem(**FAMILIES["code"].probe)], Options()).inputs
