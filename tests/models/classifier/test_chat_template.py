"""Chat templates: the same text at any time, the date by the card, and readable faults."""

import json
from datetime import date
from pathlib import Path

import pytest
from support.checkpoints import TEMPLATE, build_checkpoint, load_classifier, load_model
from support.servers import Served
from transformers.utils.chat_template_utils import render_jinja_template

from assay.settings import Settings
from assay_models.base import ItemError
from assay_models.card import CardError
from assay_models.families.classifier.chat_template import fixed_template
from assay_models.families.classifier.load_errors import CheckpointFault
from assay_models.items import Message

pytestmark = pytest.mark.weights

DAY = date(2024, 7, 26)
MESSAGES = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
DATED = "{{ strftime_now('%d %b %Y') }}" + TEMPLATE
LLAMA_LIKE = (
    "{%- if not date_string is defined %}\n"
    "    {%- if strftime_now is defined %}\n"
    '        {%- set date_string = strftime_now("%d %b %Y") %}\n'
    "    {%- else %}\n"
    '        {%- set date_string = "1 Jan 2000" %}\n'
    "    {%- endif %}\n"
    "{%- endif %}\n"
    "Today is {{ date_string }}.\n{% for m in messages %}{{ m.content }}{% endfor %}"
)


def render(template: str) -> str:
    rendered: str = render_jinja_template([MESSAGES], chat_template=template)[0][0]
    return rendered


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ strftime_now('%d %b %Y') }}", "26 Jul 2024"),
        ('\n {{ strftime_now("%Y") }}-{{ strftime_now(format="%H:%M") }}', "\n 2024-00:00"),
        ("  {% if true %}\n  x{% endif %}{{ strftime_now('%y\"') }}", '  x24"'),
        ("{% macro now() %}{{ strftime_now('%B') }}{% endmacro %}{{ now() }}", "July"),
        (LLAMA_LIKE, "Today is 26 Jul 2024.\nqa"),
    ],
)
def test_a_template_that_asks_for_the_time_writes_the_cards_date(
    template: str, expected: str
) -> None:
    assert render(fixed_template(template, DAY)) == expected


@pytest.mark.parametrize(
    "template",
    [
        TEMPLATE,
        "{% generation %}{{ messages[0].content }}{% endgeneration %}",
        "{% for m in messages %}{% if loop.last %}{% break %}{% endif %}{{ m.role }}{% endfor %}",
        "{{ messages | tojson(indent=2) }}{{ 'a strftime_now of words' }}",
    ],
)
def test_a_template_that_depends_on_the_conversation_alone_stays_as_it_is(template: str) -> None:
    assert fixed_template(template, None) is template


@pytest.mark.parametrize(
    ("template", "at", "fault"),
    [
        (DATED, None, r"writes the present date \(strftime_now\).*options\.date \(as"),
        ("{% set now = strftime_now %}{{ now('%Y') }}", DAY, "other than in calls"),
        ("{{ strftime_now(messages[0].content) }}", DAY, "a format that is not written out"),
        ("{{ strftime_now() }}", DAY, "a format that is not written out"),
        ("{{ ['a', 'b'] | random }}", None, r"draws at random \('random'\)"),
        ("{{ [['a', 'b']] | map('random') | list }}", None, r"draws at random \('random'\)"),
        ("{{ lipsum(n=1) }}", None, r"draws at random \('lipsum'\)"),
        (TEMPLATE, DAY, r"options\.date has no effect"),
        ("{% for m in messages %}\n{{ m.content }", None, "line 2: unexpected '}'"),
        ("{{ messages | nosuch }}", None, "line 1: No filter named 'nosuch'"),
        ("{% include 'other' %}{% nosuch %}", None, "line 1: Encountered unknown tag 'nosuch'"),
    ],
)
def test_a_template_without_a_text_of_its_own_is_refused(
    template: str, at: date | None, fault: str
) -> None:
    with pytest.raises(CheckpointFault, match=fault):
        fixed_template(template, at)


def test_the_date_of_the_card_decides_the_text_and_the_fingerprint(tmp_path: Path) -> None:
    folder = build_checkpoint("qwen3", tmp_path, template=DATED)
    with pytest.raises(CardError, match=r"tiny@1: the chat template .*options\.date"):
        load_model(folder)
    fingerprints = set()
    for day, text in (("2024-07-26", "26 Jul 2024"), ("2025-01-02", "02 Jan 2025")):
        folder = build_checkpoint("qwen3", tmp_path, template=DATED, options={"date": day})
        classifier = load_classifier(folder)
        assert classifier.formatter.render_chat("q", "a").startswith(text)
        fingerprints.add(load_model(folder).fingerprint)
    assert len(fingerprints) == 2


@pytest.mark.parametrize("template", ["{% if %}", "{{ messages | nosuch }}"])
@pytest.mark.parametrize("is_the_cards", [True, False])
def test_a_template_with_a_fault_is_refused_when_the_model_is_loaded(
    tmp_path: Path, template: str, is_the_cards: bool
) -> None:
    options = {"chat_template": "own.jinja"} if is_the_cards else {}
    own = TEMPLATE if is_the_cards else template
    folder = build_checkpoint("qwen3", tmp_path, template=own, options=options)
    (folder / "own.jinja").write_text(template)
    with pytest.raises(CardError, match="tiny@1: the chat template cannot be used: line 1: "):
        load_model(folder)


@pytest.mark.parametrize(
    "expression",
    ["range(10 ** 9) | list", "1 // 0", "messages[9].content.x", "{}[messages].x", "'a' + 1"],
)
def test_a_template_that_fails_on_a_conversation_gives_an_item_error(
    tmp_path: Path, expression: str
) -> None:
    template = f"{{{{ {expression} }}}}"
    classifier = load_classifier(build_checkpoint("qwen3", tmp_path, template=template))
    with pytest.raises(ItemError, match="the chat template refuses this conversation"):
        classifier.encode_chat([Message(role="user", content="q")], "error")


async def test_a_date_written_as_toml_has_it_is_served_with_the_card(
    tmp_path: Path, served: Served
) -> None:
    folder = build_checkpoint("qwen3", tmp_path, template=DATED, options={"date": "2024-07-26"})
    card = folder / "card.toml"
    card.write_text(card.read_text().replace('"2024-07-26"', "2024-07-26"))
    async with served(Settings(models=("tiny",), repository=(folder,))) as client:
        shown = (await client.get("/v1/models/tiny")).json()
    assert shown["state"] == "ready"
    assert shown["options"]["date"] == "2024-07-26"


def test_a_template_that_is_no_text_is_refused(tmp_path: Path) -> None:
    folder = build_checkpoint("qwen3", tmp_path, template=None)
    path = folder / "weights" / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": 5}))
    with pytest.raises(CardError, match=r"chat_template in tokenizer_config\.json is no text"):
        load_model(folder)
