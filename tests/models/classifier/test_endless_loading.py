"""Checkpoints that would never finish to load are refused, and say why."""

import json
from pathlib import Path

import pytest
from support.checkpoints import TEMPLATE, build_checkpoint, load_classifier

from assay_models.card import CardError
from assay_models.families.classifier.chat_template import fixed_template
from assay_models.families.classifier.load_errors import CheckpointFault

LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
WITHIN = r"two short messages take it more than 5 s of CPU time or 1024 MiB"


@pytest.mark.slow
def test_a_template_of_nested_loops_is_refused(tmp_path: Path) -> None:
    build_checkpoint("qwen3", tmp_path, template=TEMPLATE + LOOPS)
    with pytest.raises(CardError, match=rf"tiny@1: the chat template cannot be used: {WITHIN}"):
        load_classifier(tmp_path)


@pytest.mark.parametrize(
    "template",
    [
        "{{ 'a' * 10000000000 }}",
        "{% set a = 'a' * 30000 %}{% set b = a * 30000 %}{% set c = b * 30000 %}{{ c }}",
    ],
)
def test_a_template_that_takes_all_memory_is_refused(template: str) -> None:
    with pytest.raises(CheckpointFault, match=WITHIN):
        fixed_template(template, None)


@pytest.mark.parametrize("path", ["/etc/hostname", "../own.jinja"])
def test_a_template_outside_the_folder_of_the_card_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "own.jinja").write_text(TEMPLATE)
    folder = build_checkpoint("qwen3", tmp_path / "card", options={"chat_template": path})
    with pytest.raises(CardError, match="leads out of"):
        load_classifier(folder)


def test_a_config_of_more_layers_than_the_files_have_tensors_is_refused(tmp_path: Path) -> None:
    build_checkpoint("qwen3", tmp_path)
    path = tmp_path / "weights" / "config.json"
    config = json.loads(path.read_text()) | {"num_hidden_layers": 400_000}
    path.write_text(json.dumps({name: config[name] for name in config if name != "layer_types"}))
    with pytest.raises(CardError, match=r"names 400000 layers, and the files hold \d+ tensors"):
        load_classifier(tmp_path)
