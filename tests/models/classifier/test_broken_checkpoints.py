"""Checkpoints that cannot be served: the reason names the model, the part and the remedy."""

import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.checkpoints import build_checkpoint, load_model, save_adapter
from support.servers import Served
from torch import Tensor

from assay.settings import Settings
from assay_models.card import CardError

pytestmark = pytest.mark.weights

Change = Callable[[Path], object]
"""A change to a folder that holds a checkpoint in `weights`."""

LFS_POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 123\n"
INDEX = "model.safetensors.index.json"
SHARD = "model-0000{}-of-00002.safetensors"


def edit_json(name: str, **fields: Any) -> Change:
    """Return a change of fields of a JSON file; None removes the field."""

    def change(folder: Path) -> None:
        path = folder / "weights" / name
        known = {**json.loads(path.read_text()), **fields}
        path.write_text(json.dumps({key: part for key, part in known.items() if part is not None}))

    return change


def config(**fields: Any) -> Change:
    return edit_json("config.json", **fields)


def tokenizer_config(**fields: Any) -> Change:
    return edit_json("tokenizer_config.json", **fields)


def write(name: str, content: bytes | str) -> Change:
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / "weights" / name).write_bytes(data)


def remove(pattern: str, then: Change = lambda _: None) -> Change:
    def change(folder: Path) -> None:
        for path in (folder / "weights").glob(pattern):
            path.unlink()
        then(folder)

    return change


def weights(change: Callable[[dict[str, Tensor]], object]) -> Change:
    def apply(folder: Path) -> None:
        path = folder / "weights" / "model.safetensors"
        state = load_file(path)
        change(state)
        save_file(state, path, {"format": "pt"})

    return apply


def set_value(name: str, number: float) -> Change:
    return weights(lambda state: state[name].__setitem__((0, 0), number))


def cast(name: str, dtype: torch.dtype) -> Change:
    return weights(lambda state: state.__setitem__(name, state[name].to(dtype)))


def cut(folder: Path) -> None:
    path = folder / "weights" / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def pickle(folder: Path) -> None:
    path = folder / "weights" / "model.safetensors"
    torch.save(load_file(path), folder / "weights" / "pytorch_model.bin")
    path.unlink()


def shards(
    missing: int | None = None, index: Callable[[Mapping[str, str]], object] = dict
) -> Change:
    """Return a change to two shards, without one of them or with another index."""

    def change(folder: Path) -> None:
        path = folder / "weights" / "model.safetensors"
        state = load_file(path)
        names = sorted(state)
        places = {name: SHARD.format(1 + position % 2) for position, name in enumerate(names)}
        for number in {1, 2} - {missing}:
            shard = SHARD.format(number)
            held = {name: state[name] for name in names if places[name] == shard}
            save_file(held, path.with_name(shard), {"format": "pt"})
        path.unlink()
        path.with_name(INDEX).write_text(json.dumps({"weight_map": index(places)}))

    return change


BODY = "model.layers.1.mlp.up_proj.weight"

CASES: dict[str, tuple[Change, str]] = {
    "weights that are NaN": (
        set_value(BODY, float("nan")),
        rf"not finite \(NaN or infinite\): {re.escape(BODY)}\.",
    ),
    "an infinite weight of the head": (
        set_value("score.weight", float("inf")),
        r"not finite \(NaN or infinite\): score\.weight\.",
    ),
    "weights stored as integers": (
        cast(BODY, torch.int8),
        rf"integers \(I8\) are stored for {re.escape(BODY)}: save the weights as floats",
    ),
    "weights cut short": (cut, r"model\.safetensors is no complete safetensors file .*again"),
    "an empty file of weights": (
        write("model.safetensors", b""),
        r"model\.safetensors is no complete safetensors file",
    ),
    "a pointer of Git LFS": (
        write("model.safetensors", LFS_POINTER),
        "is a pointer of Git LFS and not the file: run git lfs pull",
    ),
    "a pickle alone": (
        pickle,
        r"no model\.safetensors in .*, only a pickle, which is never read: .* save_pretrained",
    ),
    "a GGUF alone": (
        remove("*.safetensors", write("tiny.gguf", b"GGUF")),
        r"no model\.safetensors in .*: name the GGUF in options\.gguf_file",
    ),
    "no folder of weights": (lambda folder: shutil.rmtree(folder / "weights"), "no folder /"),
    "a missing shard": (shards(missing=2), rf"no {SHARD.format(2)} in "),
    "an index of shards that is empty": (
        shards(index=lambda _: {}),
        f"{INDEX} does not name the files beside it",
    ),
    "an index of shards outside the folder": (
        shards(index=lambda places: dict.fromkeys(places, "../other.safetensors")),
        f"{INDEX} does not name the files beside it",
    ),
    "weights quantised by a method": (
        config(quantization_config={"quant_method": "gptq", "bits": 4}),
        r"weights are quantised \(gptq\), and only floats are computed: serve .*dequantize",
    ),
    "no config": (remove("config.json"), r"no config\.json in "),
    "a config that is no JSON": (write("config.json", "{"), "config .* is not a valid JSON file"),
    "a config without a model type": (config(model_type=None), "Should have a `model_type` key"),
    "an unknown model type": (config(model_type="qwen99"), "has model type `qwen99`"),
    "a config for an architecture of its own code": (
        config(model_type="own", auto_map={"AutoConfig": "own.Config"}),
        "config .* needs the code in its own repository, and such code is never run",
    ),
    "another size of the vocabulary": (
        config(vocab_size=5000),
        r"no fitting model\.embed_tokens\.weight .* \(.* is 273 x 32 in the files and 5000 x 32 by",
    ),
    "a config without a size": (
        config(intermediate_size=None),
        r"no fitting model\.layers\.0\.mlp\.down_proj\.weight, .* 32 x 48 in the files and ",
    ),
    "no attention heads": (config(num_attention_heads=0), "config .* ZeroDivisionError: "),
    "padding beyond the vocabulary": (
        config(pad_token_id=99_999),
        "model .* AssertionError: Padding_idx must be within",
    ),
    "an unknown activation": (config(hidden_act="nosuch"), "model .* KeyError: 'nosuch'"),
    "labels that are a list": (config(id2label=["a"]), "config .* AttributeError: 'list'"),
    "labels with a gap": (
        config(id2label={"0": "a", "2": "b"}),
        r"no fitting score\.weight for .* of 2 label",
    ),
    "a dtype that does not exist": (config(dtype="float99"), "config .*float99"),
    "a tokenizer that is no JSON": (write("tokenizer.json", "{"), "tokenizer at .* Expecting"),
    "a tokenizer that is a list": (write("tokenizer.json", "[]"), "tokenizer at .* TypeError"),
    "a tokenizer of an unknown kind": (
        write("tokenizer.json", '{"added_tokens": [], "model": {"type": "Novel"}}'),
        "tokenizer at .* did not match any variant",
    ),
    "a tokenizer with code of its own": (
        tokenizer_config(tokenizer_class="Own", auto_map={"AutoTokenizer": ["own.Own", None]}),
        "tokenizer at .* needs the code in its own repository",
    ),
    "no tokenizer": (
        remove("*token*"),
        r"no tokenizer\.json in .*: where the training ran .*save_pretrained",
    ),
    "a SentencePiece model without a fast tokenizer": (
        remove("tokenizer.json", write("tokenizer.model", b"\n\x0enonsense")),
        r"no tokenizer\.json in .*, only tokenizer\.model: where .* \(with sentencepiece",
    ),
}


def refusal(folder: Path) -> str:
    with pytest.raises(CardError) as caught:
        load_model(folder)
    return str(caught.value)


@pytest.mark.parametrize("case", CASES)
def test_a_broken_checkpoint_is_refused_with_its_reason(tmp_path: Path, case: str) -> None:
    change, reason = CASES[case]
    folder = build_checkpoint("llama", tmp_path)
    change(folder)
    refused = refusal(folder)
    assert refused.startswith("tiny@1: ")
    assert re.search(reason, refused), refused
    assert "\n" not in refused


def test_an_encoder_without_its_vocabulary_is_refused(tmp_path: Path) -> None:
    folder = build_checkpoint("bert", tmp_path)
    remove("*token*")(folder)
    assert refusal(folder) == (
        "tiny@1: the tokenizer cannot be used: there is no tokenizer.json, or it holds no words"
    )


def test_a_tokenizer_with_more_tokens_than_embeddings_is_refused(tmp_path: Path) -> None:
    folder = build_checkpoint("llama", tmp_path)
    name = "model.embed_tokens.weight"
    weights(lambda state: state.__setitem__(name, state[name][:100].clone()))(folder)
    config(vocab_size=100)(folder)
    assert "Either the tokenizer is another checkpoint's" in refusal(folder)


def test_labels_with_a_gap_are_refused(tmp_path: Path) -> None:
    folder = build_checkpoint("bert", tmp_path, num_labels=2)
    config(id2label={"0": "a", "2": "b"})(folder)
    assert "2 logits need as many different labels: mend id2label" in refusal(folder)


def test_scores_that_overflow_the_dtype_are_refused(tmp_path: Path) -> None:
    folder = build_checkpoint("llama", tmp_path)
    weights(lambda state: state[BODY].mul_(1e6))(folder)
    assert load_model(folder)
    with pytest.raises(CardError, match=r"not finite numbers in torch\.float16: set ASSAY_DTYPE"):
        load_model(folder, "float16")


ADAPTERS: dict[str, tuple[dict[str, Any] | str, str]] = {
    "for another task": (
        {"task_type": "CAUSAL_LM"},
        'for the task CAUSAL_LM has no head that scores: train it with task_type = "SEQ_CLS"',
    ),
    "of an unknown kind": ({"peft_type": "NEWER"}, "adapter at .* KeyError: 'NEWER'"),
    "that adds tokens": (
        '{"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 4}',
        "a PROMPT_TUNING adapter adds tokens: it cannot be merged",
    ),
    "for other modules": ({"target_modules": ["nope"]}, "adapter at .* No modules were targeted"),
    "whose config is no JSON": ("{", "adapter at .* Expecting property name"),
    "whose config is a list": ("[]", "adapter at .* TypeError"),
}


@pytest.mark.parametrize("case", ADAPTERS)
def test_a_broken_adapter_is_refused_with_its_reason(tmp_path: Path, case: str) -> None:
    fields, reason = ADAPTERS[case]
    folder = build_checkpoint("llama", tmp_path, options={"adapter": "adapter", "num_labels": 1})
    save_adapter(folder)
    path = folder / "adapter" / "adapter_config.json"
    if isinstance(fields, str):
        path.write_text(fields)
    else:
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    assert re.search(reason, refusal(folder))


def test_an_adapter_cut_short_is_refused(tmp_path: Path) -> None:
    folder = build_checkpoint("llama", tmp_path, options={"adapter": "adapter", "num_labels": 1})
    save_adapter(folder)
    path = folder / "adapter" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    assert re.search(r"adapter at '.*/adapter' cannot be used: .*incomplete", refusal(folder))


def test_a_damaged_gguf_is_refused(tmp_path: Path) -> None:
    folder = build_checkpoint("llama", tmp_path, options={"gguf_file": "tiny.gguf"})
    write("tiny.gguf", b"GGUFnonsense")(folder)
    assert "the config at" in refusal(folder)


REFUSING = "{{ raise_exception('a system message comes first') }}"


async def test_a_failed_model_leaves_the_others_ready_and_its_reason_readable(
    tmp_path: Path, served: Served
) -> None:
    broken = build_checkpoint("llama", tmp_path / "broken")
    cut(broken)
    settings = Settings(models=("tiny", "reference"), repository=(broken,))
    async with served(settings) as client:
        listed = (await client.get("/v1/models")).json()["models"]
        assert {model["id"]: model["state"] for model in listed} == {
            "tiny@1": "failed",
            "reference@1": "ready",
        }
        reason = (await client.get("/readyz")).json()["models"]["tiny@1"]
        assert re.search(r"model\.safetensors is no complete safetensors file", reason)
        assert (await client.get("/healthz")).status_code == 200


@pytest.mark.parametrize(
    ("example", "reason"),
    [
        ("", "the family's example has no score: the chat template refuses .*: give the card an"),
        (
            '[example]\nscore = 1.0\nitem = { prompt = "a", response = "b" }\n',
            "the card's example has no score: the chat template refuses .*: mend it",
        ),
        (
            '[example]\nscore = 1.0\nitem = { premise = "a", response = "b" }\n',
            "the card's example has no score: premise: Extra inputs are not permitted: mend it",
        ),
    ],
)
async def test_an_example_that_cannot_be_scored_fails_the_model_with_its_reason(
    tmp_path: Path, served: Served, example: str, reason: str
) -> None:
    folder = build_checkpoint("llama", tmp_path, template=REFUSING)
    with (folder / "card.toml").open("a") as card:
        card.write(example)
    async with served(Settings(models=("tiny",), repository=(folder,))) as client:
        ready = await client.get("/readyz")
        assert ready.status_code == 503
        assert re.search(reason, ready.json()["models"]["tiny@1"])
