"""Loading a checkpoint: complete or refused, no random weight, no pickle, only the card's files."""

import json
import logging
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from support.checkpoints import (
    DECODERS,
    KINDS,
    TEXTS,
    Kind,
    PlainTransformers,
    approximately,
    build_checkpoint,
    build_tokenizer,
    load_classifier,
    logits_of,
    save_adapter,
    write_card,
)
from torch import Tensor
from transformers import (
    AutoModelForSequenceClassification,
    CTRLConfig,
    CTRLForSequenceClassification,
)

from assay_models.card import CardError
from assay_models.repository import digest_of

pytestmark = pytest.mark.weights


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    path = folder / "weights" / "model.safetensors"
    state = load_file(path)
    change(state)
    save_file(state, path, {"format": "pt"})


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_without_its_head_is_refused(tmp_path: Path, kind: Kind) -> None:
    folder = build_checkpoint(kind, tmp_path, with_head=False)
    with pytest.raises(CardError, match=r"(score|classifier)\.\w+.*: it would be random"):
        load_classifier(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_weight_of_the_body_is_refused(tmp_path: Path, kind: Kind) -> None:
    folder = build_checkpoint(kind, tmp_path)
    weights = load_file(folder / "weights" / "model.safetensors")
    missing = next(name for name in sorted(weights) if ".1." in name)
    rewrite(folder, lambda state: state.pop(missing))
    with pytest.raises(CardError, match="would be random"):
        load_classifier(folder)


@pytest.mark.parametrize(
    "name", ["value_head.weight", "score.bias", "model.layers.3.mlp.up_proj.weight_scale"]
)
def test_a_weight_that_the_model_has_no_place_for_is_refused(tmp_path: Path, name: str) -> None:
    folder = build_checkpoint("qwen3", tmp_path)
    rewrite(folder, lambda state: state.update({name: torch.ones(1)}))
    with pytest.raises(CardError, match=rf"the files hold {re.escape(name)}.*options\.unused = \["):
        load_classifier(folder)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("lm_head.weight", {}),
        ("cls.predictions.bias", {}),
        ("value_head.weight", {"unused": ["value_head."]}),
    ],
)
def test_a_head_for_another_task_is_left_unused_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, options: dict[str, object]
) -> None:
    expected = logits_of(load_classifier(build_checkpoint("qwen3", tmp_path)))
    folder = build_checkpoint("qwen3", tmp_path, options=options)
    rewrite(folder, lambda state: state.update({name: torch.ones(8, 32)}))
    with caplog.at_level(logging.WARNING):
        assert logits_of(load_classifier(folder)) == expected
    assert f"tiny@1: left unused: {name}" in caplog.text


def test_a_head_of_another_shape_is_refused(tmp_path: Path) -> None:
    folder = build_checkpoint("llama", tmp_path, num_labels=3, options={"num_labels": 2})
    with pytest.raises(CardError, match=r"no fitting score\.weight for .* of 2 label"):
        load_classifier(folder)


def test_a_pickle_is_refused(tmp_path: Path) -> None:
    folder = build_checkpoint("bert", tmp_path)
    path = folder / "weights" / "model.safetensors"
    torch.save(load_file(path), folder / "weights" / "pytorch_model.bin")
    path.unlink()
    with pytest.raises(CardError, match=r"no model\.safetensors"):
        load_classifier(folder)


def test_a_file_of_another_digest_is_refused(tmp_path: Path) -> None:
    folder = build_checkpoint("llama", tmp_path)
    digest = digest_of(folder / "weights" / "model.safetensors")
    table = 'source = "folder"\npath = "weights"\nfiles = {{ "model.safetensors" = "{}" }}'
    write_card(folder, weights=table.format(digest))
    assert logits_of(load_classifier(folder))
    rewrite(folder, lambda state: state["score.weight"].mul_(1.01))
    with pytest.raises(CardError, match="not the file of the card"):
        load_classifier(folder)


def test_the_fingerprint_changes_with_every_file_that_decides_a_number(tmp_path: Path) -> None:
    folder = build_checkpoint("llama", tmp_path)
    before = load_classifier(folder).fingerprint_parts
    assert load_classifier(folder).fingerprint_parts == before
    assert load_classifier(folder, "bfloat16").fingerprint_parts != before
    (folder / "weights" / "README.md").write_text("nothing that decides")
    assert load_classifier(folder).fingerprint_parts == before
    words = folder / "weights" / "tokenizer.json"
    words.write_text(
        words.read_text().replace('"normalizer": null', '"normalizer": {"type": "NFC"}')
    )
    with_other_words = load_classifier(folder).fingerprint_parts
    assert with_other_words["tokenizer"] != before["tokenizer"]
    rewrite(folder, lambda state: state["score.weight"].mul_(1.01))
    after = load_classifier(folder).fingerprint_parts
    assert after != before
    template = folder / "weights" / "chat_template.jinja"
    template.write_text(template.read_text() + "!")
    assert load_classifier(folder).fingerprint_parts != after


def test_a_template_beside_the_card_replaces_the_checkpoints_own(tmp_path: Path) -> None:
    options = {"chat_template": "own.jinja"}
    folder = build_checkpoint("qwen3", tmp_path, options=options)
    with pytest.raises(CardError, match=r"own\.jinja"):
        load_classifier(folder)
    (folder / "own.jinja").write_text("{% for m in messages %}[{{ m.content }}]{% endfor %}")
    first = load_classifier(folder)
    assert first.formatter.chat_template == "{% for m in messages %}[{{ m.content }}]{% endfor %}"
    (folder / "own.jinja").write_text("{% for m in messages %}({{ m.content }}){% endfor %}")
    assert load_classifier(folder).fingerprint_parts != first.fingerprint_parts


@pytest.mark.parametrize("kind", KINDS)
def test_num_hidden_layers_keeps_only_the_lower_layers(tmp_path: Path, kind: Kind) -> None:
    whole = build_checkpoint(kind, tmp_path, options={"num_hidden_layers": 2})
    classifier = load_classifier(whole)
    expected = PlainTransformers(whole)
    encoder = expected.model.base_model
    layers = encoder.encoder.layer if hasattr(encoder, "encoder") else encoder.layers
    del layers[2:]
    expected.model.config.num_hidden_layers = 2
    assert classifier.model.config.num_hidden_layers == 2
    for row, text in zip(logits_of(classifier), TEXTS, strict=True):
        assert row == approximately(expected.text(text))


def test_labels_come_from_the_config_in_the_order_of_the_logits(tmp_path: Path) -> None:
    names = ["refuted", "unsettled", "supported"]
    assert load_classifier(build_checkpoint("bert", tmp_path, labels=names)).labels == tuple(names)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"labels": ["yes", "no", "maybe"]}, r"no fitting score\.weight for .* of 3 label"),
        ({"labels": ["yes", "yes"]}, "different labels"),
        ({"num_hidden_layers": 0}, "num_hidden_layers"),
        ({"num_labels": "two"}, "num_labels"),
        ({"adapter": "nowhere"}, "adapter_config"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    tmp_path: Path, options: dict[str, object], problem: str
) -> None:
    folder = build_checkpoint("llama", tmp_path, num_labels=2, options=options)
    with pytest.raises(CardError, match=problem):
        load_classifier(folder)


def test_labels_of_the_card_name_the_logits(tmp_path: Path) -> None:
    options = {"labels": ["bad", "good"]}
    folder = build_checkpoint("llama", tmp_path, num_labels=2, options=options)
    assert load_classifier(folder).labels == ("bad", "good")


def test_more_tokens_than_the_checkpoint_has_positions_are_refused(tmp_path: Path) -> None:
    folder = build_checkpoint("bert", tmp_path, max_tokens=513)
    with pytest.raises(CardError, match="512 positions"):
        load_classifier(folder)


def test_a_name_that_is_no_floating_dtype_is_refused(tmp_path: Path) -> None:
    folder = build_checkpoint("bert", tmp_path)
    for name in ("int8", "float33", "nn"):
        with pytest.raises(CardError, match=r"no floating dtype .* float32, bfloat16 or"):
            load_classifier(folder, name)


def test_a_half_precision_checkpoint_is_computed_in_fp32_when_asked(tmp_path: Path) -> None:
    folder = build_checkpoint("qwen3", tmp_path, dtype=torch.bfloat16)
    classifier, plain = load_classifier(folder), PlainTransformers(folder)
    assert classifier.model.dtype == torch.float32
    for row, text in zip(logits_of(classifier), TEXTS, strict=True):
        assert row == approximately(plain.text(text))


ADAPTED = [
    ("llama", "score", ("q_proj", "v_proj", "up_proj")),
    ("qwen3", "score", ("q_proj", "down_proj")),
    ("bert", "classifier", ("query", "value")),
]
OPTIONS = {"adapter": "adapter", "num_labels": 1}


@pytest.mark.parametrize(("kind", "head", "targets"), ADAPTED)
@pytest.mark.parametrize("with_head", [True, False])
def test_an_adapter_scores_as_in_peft(
    tmp_path: Path, kind: Kind, head: str, targets: tuple[str, ...], with_head: bool
) -> None:
    folder = build_checkpoint(kind, tmp_path, with_head=with_head, options=OPTIONS)
    save_adapter(folder, head=head, targets=targets)
    classifier = load_classifier(folder)
    base = AutoModelForSequenceClassification.from_pretrained(folder / "weights", num_labels=1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        theirs = PeftModel.from_pretrained(base, folder / "adapter").eval()
    for row, text in zip(logits_of(classifier), TEXTS, strict=True):
        inputs = classifier.tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            assert row == approximately(theirs(**inputs).logits[0].tolist())


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_an_adapter_is_merged_before_the_body_is_rounded(
    tmp_path: Path, stored: torch.dtype
) -> None:
    folder = build_checkpoint("llama", tmp_path, with_head=False, options=OPTIONS, dtype=stored)
    save_adapter(folder)
    exact, rounded = load_classifier(folder), load_classifier(folder, "bfloat16")
    theirs, ours = (
        loaded.model.base_model.layers[0].self_attn.q_proj.weight.to_dense()
        for loaded in (exact, rounded)
    )
    assert torch.equal(ours, theirs.bfloat16())
    assert torch.equal(exact.model.score.weight, rounded.model.score.weight)


def test_an_adapter_without_the_head_that_the_base_lacks_is_refused(tmp_path: Path) -> None:
    folder = build_checkpoint("llama", tmp_path, with_head=False, options=OPTIONS)
    save_adapter(folder)
    config = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    config |= {"modules_to_save": None, "task_type": None}
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    path = folder / "adapter" / "adapter_model.safetensors"
    state = {name: part for name, part in load_file(path).items() if "score" not in name}
    save_file(state, path, {"format": "pt"})
    with pytest.raises(CardError, match=r"score\.weight for .* it would be random"):
        load_classifier(folder)


def test_an_adapter_with_a_part_missing_is_refused(tmp_path: Path) -> None:
    folder = build_checkpoint("llama", tmp_path, with_head=False, options=OPTIONS)
    save_adapter(folder)
    path = folder / "adapter" / "adapter_model.safetensors"
    state = load_file(path)
    state.pop(next(name for name in state if "lora_B" in name))
    save_file(state, path, {"format": "pt"})
    with pytest.raises(CardError, match="disagree about"):
        load_classifier(folder)


def test_a_pickled_adapter_is_refused(tmp_path: Path) -> None:
    folder = build_checkpoint("llama", tmp_path, with_head=False, options=OPTIONS)
    save_adapter(folder)
    path = folder / "adapter" / "adapter_model.safetensors"
    torch.save(load_file(path), folder / "adapter" / "adapter_model.bin")
    path.unlink()
    with pytest.raises(CardError, match=r"no adapter_model\.safetensors"):
        load_classifier(folder)


def test_an_adapter_decides_the_fingerprint(tmp_path: Path) -> None:
    folder = build_checkpoint("llama", tmp_path, with_head=False, options=OPTIONS)
    save_adapter(folder)
    before = load_classifier(folder).fingerprint_parts
    path = folder / "adapter" / "adapter_model.safetensors"
    state = load_file(path)
    save_file({name: part * 1.5 for name, part in state.items()}, path, {"format": "pt"})
    assert load_classifier(folder).fingerprint_parts != before


def test_an_adapter_among_the_weights_is_refused(tmp_path: Path) -> None:
    folder = build_checkpoint("llama", tmp_path)
    save_adapter(folder)
    shutil.copy(folder / "adapter" / "adapter_config.json", folder / "weights")
    with pytest.raises(CardError, match=r"options\.adapter"):
        load_classifier(folder)


@pytest.mark.parametrize("kind", sorted(DECODERS))
@pytest.mark.parametrize("other_head", ["lm_head.weight", "pooler.dense.weight"])
def test_a_model_for_another_task_takes_its_head_from_the_adapter(
    tmp_path: Path, kind: Kind, other_head: str
) -> None:
    folder = build_checkpoint(kind, tmp_path, with_head=False, options=OPTIONS)
    rewrite(folder, lambda state: state.update({other_head: torch.ones(8, 32)}))
    save_adapter(folder)
    assert all(len(row) == 1 for row in logits_of(load_classifier(folder)))


def test_an_architecture_that_cannot_be_batched_is_refused(tmp_path: Path) -> None:
    folder = build_checkpoint("qwen3", tmp_path, pad="none")
    config = CTRLConfig(
        vocab_size=len(build_tokenizer("qwen3")),
        n_embd=32,
        dff=48,
        n_layer=2,
        n_head=4,
        n_positions=512,
    )
    config.num_labels = 1
    CTRLForSequenceClassification(config).save_pretrained(folder / "weights")
    with pytest.raises(CardError, match="cannot be computed in batches"):
        load_classifier(folder)


REVISION = "0123456789abcdef0123456789abcdef01234567"


def as_hub(folder: Path, cache: Path) -> Path:
    """Move the weights to the place where the hub's client stores them."""
    snapshot = cache / "models--someone--tiny" / "snapshots" / REVISION
    snapshot.parent.mkdir(parents=True)
    shutil.move(folder / "weights", snapshot)
    return snapshot


@pytest.fixture
def offline_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    cache = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    return cache


def test_a_hub_model_loads_at_its_pinned_revision(tmp_path: Path, offline_cache: Path) -> None:
    folder = build_checkpoint("qwen3", tmp_path / "card")
    expected = logits_of(load_classifier(folder))
    snapshot = as_hub(folder, offline_cache)
    digest = digest_of(snapshot / "model.safetensors")
    hub = f'source = "hub"\nhub = "someone/tiny"\nrevision = "{REVISION}"'
    write_card(folder, weights=f'{hub}\nfiles = {{ "model.safetensors" = "{digest}" }}')
    assert logits_of(load_classifier(folder)) == expected
    write_card(folder, weights=f'{hub}\nfiles = {{ "model.safetensors" = "sha256:{"0" * 64}" }}')
    with pytest.raises(CardError, match="not the file of the card"):
        load_classifier(folder)
    write_card(folder, weights=hub.replace(REVISION, "f" * 40))
    with pytest.raises(CardError, match="cannot be used"):
        load_classifier(folder)


def test_a_hub_model_without_a_revision_is_refused(tmp_path: Path) -> None:
    folder = build_checkpoint("qwen3", tmp_path)
    write_card(folder, weights='source = "hub"\nhub = "someone/tiny"')
    with pytest.raises(CardError, match="revision"):
        load_classifier(folder)


def test_a_card_without_weights_is_refused(tmp_path: Path) -> None:
    folder = build_checkpoint("qwen3", tmp_path)
    write_card(folder, weights='source = "none"')
    with pytest.raises(CardError, match=r"weights\.source"):
        load_classifier(folder)
