"""A classifier's model and tokenizer, read from the place that its card names."""

import logging
import re
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from transformers import AutoModelForSequenceClassification

from assay_models.families.classifier.checkpoint_files import ADAPTER, CheckpointFiles
from assay_models.families.classifier.transformers_compat import (
    cache_gguf_reading,
    read_without_mapping,
    silence_transformers,
)
from assay_models.families.classifier.weight_files import (
    read_tensors,
    refuse_integers,
    refuse_more_layers,
    refuse_not_finite,
    refuse_quantised,
    stored_types,
    summary,
)

logger = logging.getLogger(__name__)

_PRETRAINING_HEADS = re.compile(r"^(lm_head|cls|decoder|lm_predictions|mask_predictions|pooler)\.")


@dataclass(frozen=True, slots=True)
class Checkpoint(CheckpointFiles):
    """One card's checkpoint with its weights."""

    def load(self, dtype: torch.dtype) -> tuple[Any, Any]:
        """Load the model and its tokenizer; see `load_model` and `load_tokenizer`."""
        with nullcontext() if self.options.gguf_file is None else cache_gguf_reading():
            return self.load_model(dtype), self.load_tokenizer()

    def load_model(self, dtype: torch.dtype) -> Any:
        """Load the model in evaluation mode, in `dtype` or as it was stored, with changed tensors
        in place and its adapter merged.

        Every weight comes from a file: what the checkpoint, the changed tensors and the adapter
        leave out, and what they hold beyond the model, is an error; only heads for other tasks are
        left unused with a warning, and what the card names in `unused`.

        Raises:
            CardError: weights are missing, left over, of another shape, not finite, not floats, or
                not safetensors.
        """
        types = self._stored_types()
        model, report = self._pretrained(dtype, types)
        self._refuse_leftovers(model, set(report["unexpected_keys"]))
        with self._reading("model"):
            refuse_integers(model, types)
        shapes = {name: shape for name, *shape in report["mismatched_keys"]}
        missing = {*report["missing_keys"], *shapes}
        if self.options.changed is not None:
            missing -= self._replace_tensors(model, self._beside(self.options.changed))
        if self.options.adapter is not None:
            model, given = self._with_adapter(model, self._beside(self.options.adapter))
            missing -= given
        if missing:
            fitting = f"{type(model).__name__} of {model.config.num_labels} label(s)"
            raise self._error(
                f"the files hold no fitting {summary(missing)} for {fitting}{_shapes(shapes)}: it "
                "would be random"
            )
        with self._reading("model"):
            refuse_not_finite(model)
        return model.eval().requires_grad_(False)

    def _pretrained(self, dtype: torch.dtype, types: Mapping[str, str]) -> tuple[Any, Any]:
        config = self._config()
        if types:
            with self._reading("config"):
                refuse_more_layers(config, types)
        # Adapters are merged in fp32; `auto` keeps a head that was stored in fp32 as it is.
        is_exact = dtype == torch.float32 or self._has_own_files
        with self._reading("model"), silence_transformers(), read_without_mapping():
            model, report = AutoModelForSequenceClassification.from_pretrained(
                self._name,
                config=config,
                dtype=torch.float32 if is_exact else "auto",
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                **self._source,
            )
        return model, report

    def _config(self) -> Any:
        config = self.read_config()
        with self._reading("config"):
            refuse_quantised(config)
        if self.options.num_hidden_layers is not None:
            _keep_layers(config, self.options.num_hidden_layers)
        return config

    def _stored_types(self) -> dict[str, str]:
        """Refuse files that no model can be read from; return the types of the others' tensors."""
        folder = self.files.weights
        if self.card.weights.source == "hub":
            self.verify_hub()
            return {}
        if folder is None:
            raise self._error("weights.source must be `folder`, `package` or `hub`")
        if (folder / "adapter_config.json").is_file():
            raise self._error(
                "an adapter lies among the weights: put it in a folder of its own beside the card, "
                "name this in options.adapter, and let weights name the base model"
            )
        if self.options.gguf_file is not None:
            self._inside(folder, self.options.gguf_file)
            return {}
        with self._reading("model"):
            return stored_types(folder)

    def _refuse_leftovers(self, model: Any, unexpected: set[str]) -> None:
        kept = self.options.num_hidden_layers
        if kept is not None:
            unexpected = {key for key in unexpected if not _is_layer_above(key, kept)}
        known = self.options.unused
        unused = {
            key for key in unexpected if _PRETRAINING_HEADS.match(key) or key.startswith(known)
        }
        # A base model under an adapter is expected to bring the heads of its own task.
        if unused and not self._has_own_files:
            logger.warning("%s: left unused: %s", self.card.id, summary(unused))
        unexpected -= unused
        if unexpected:
            raise self._error(
                f"the files hold {summary(unexpected)}, for which {type(model).__name__} has no "
                "place: the scores may not be those of the training. If they do not belong to the "
                f'score, write options.unused = ["{min(unexpected)}"]'
            )

    def _replace_tensors(self, model: Any, path: Path) -> set[str]:
        """Copy the tensors of a file over the model's, and return their names."""
        with self._reading("file of changed tensors", path):
            state = read_tensors(path)
        places = model.state_dict()
        for name, tensor in state.items():
            if name not in places or places[name].shape != tensor.shape:
                fitting = f"{type(model).__name__} of this head"
                raise self._error(f"{path.name!r} holds {name}, for which {fitting} has no place")
        model.load_state_dict(state, strict=False)
        return set(state)

    def _with_adapter(self, model: Any, folder: Path) -> tuple[Any, set[str]]:
        for name in ADAPTER:
            if not (folder / name).is_file():
                raise self._error(f"no {name} in {folder}")
        with self._reading("adapter", folder):
            config = self._adapter_config(folder)
            state = read_tensors(folder / "adapter_model.safetensors")
            with warnings.catch_warnings():
                # peft asks Transformers for an attribute that has a new name.
                warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
                adapted = get_peft_model(model, config)
            wanted = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
            if wanted != set(state):
                different = summary(wanted ^ set(state))
                raise self._error(f"the adapter and the model disagree about {different}")
            set_peft_model_state_dict(adapted, state)
            given = {key.removeprefix("base_model.model.") for key in state}
            return adapted.merge_and_unload(), given

    def _adapter_config(self, folder: Path) -> PeftConfig:
        config: PeftConfig = PeftConfig.from_pretrained(str(folder))
        if config.is_prompt_learning:
            raise self._error(
                f"a {_name_of(config.peft_type)} adapter adds tokens: it cannot be merged"
            )
        if config.task_type not in (None, "SEQ_CLS"):
            raise self._error(
                f"an adapter for the task {_name_of(config.task_type)} has no head that scores: "
                'train it with task_type = "SEQ_CLS"; if it does bring a head (modules_to_save), '
                "write SEQ_CLS in its adapter_config.json"
            )
        config.inference_mode = True
        config.base_model_name_or_path = None  # the place of training; the card names the place now
        return config


def _keep_layers(config: Any, count: int) -> None:
    config.num_hidden_layers = count
    kinds = getattr(config, "layer_types", None)
    if kinds is not None:
        config.layer_types = kinds[:count]


def _is_layer_above(key: str, kept: int) -> bool:
    layer = re.search(r"\.(?:layers|layer|h)\.(\d+)\.", f".{key}")
    return layer is not None and int(layer[1]) >= kept


def _name_of(kind: Any) -> str:
    return str(getattr(kind, "value", kind))


def _shapes(mismatched: Mapping[str, Sequence[Any]]) -> str:
    if not mismatched:
        return ""
    name = min(mismatched)
    stored, wanted = (" x ".join(map(str, shape)) for shape in mismatched[name])
    return f" ({name} is {stored} in the files and {wanted} by the config and the card)"
