"""A classifier's model and tokenizer, read from the place that its card names."""

import datetime
import logging
import re
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from peft import PeftConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from pydantic import BaseModel, ConfigDict, Field
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils.hub import cached_file

from assay_models.card import CardError, ModelCard
from assay_models.families.classifier.load_errors import Reading
from assay_models.families.classifier.outputs import ProblemType
from assay_models.families.classifier.surprisal import SurprisalOptions
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
from assay_models.file_stamps import DECIDING_SUFFIXES
from assay_models.repository import ModelFiles, digest_of, path_inside

logger = logging.getLogger(__name__)

_PRETRAINING_HEADS = re.compile(r"^(lm_head|cls|decoder|lm_predictions|mask_predictions|pooler)\.")
_ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
_WORDS = ("*.model", "*.tiktoken", "vocab.*")


class ClassifierOptions(BaseModel):
    """The `[options]` of a card about its checkpoint; a family adds fields of its own.

    `adapter`: a folder beside the card with a PEFT adapter. `changed`: a safetensors file beside
    the card whose tensors take the places of the checkpoint's, by name. `unused`: beginnings of the
    names of tensors that the checkpoint may hold beyond the model. `gguf_file`: the weights' file
    in the weights folder, where it is a GGUF. `num_hidden_layers`: only the lower layers.
    `num_labels`, `labels` and `problem_type`: the head's outputs, where the checkpoint's config
    does not say.
    `chat_template`: a Jinja file beside the card that takes the place of the checkpoint's own.
    `date`: the day that a template writes which asks for the present one.
    `pooling`: which token a decoder's score is read at, the one that Transformers would read in the
    sequence alone (the last that is not the padding token, which matters only where padding is EOS
    and the text ends with it), or always the `last`. `rendering`: what the chat template must make
    of the user's message `q` and the assistant's `a`; a checkpoint whose template makes something
    else is refused. `surprisal`: what is subtracted from a decoder's logit for its own predictions
    (see `SurprisalOptions`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    adapter: str | None = None
    changed: str | None = None
    unused: tuple[str, ...] = ()
    gguf_file: str | None = None
    num_hidden_layers: int | None = Field(default=None, ge=1)
    num_labels: int | None = Field(default=None, ge=1)
    labels: tuple[str, ...] | None = None
    problem_type: ProblemType | None = None
    chat_template: str | None = None
    date: datetime.date | None = None
    pooling: Literal["transformers", "last"] = "transformers"
    rendering: str | None = None
    surprisal: SurprisalOptions | None = None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One card's checkpoint: its files, and the options for what of it is used."""

    card: ModelCard
    files: ModelFiles
    options: ClassifierOptions

    def load(self, dtype: torch.dtype) -> tuple[Any, Any]:
        """Load the model and its tokenizer; see `load_model` and `load_tokenizer`."""
        with nullcontext() if self.options.gguf_file is None else cache_gguf_reading():
            return self.load_model(dtype), self.load_tokenizer()

    def load_tokenizer(self) -> Any:
        """Load the checkpoint's tokenizer.

        Raises:
            CardError: there is none that can be read.
        """
        try:
            with self._reading("tokenizer"):
                return AutoTokenizer.from_pretrained(self._name, **self._source)
        except CardError as error:
            raise self._without_words() or error from error

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

    def chat_template(self) -> str | None:
        """Read the template that the card puts in place of the checkpoint's own, if it does.

        Raises:
            CardError: the file cannot be read.
        """
        if self.options.chat_template is None:
            return None
        try:
            return self._beside(self.options.chat_template).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise self._error(f"no readable {self.options.chat_template!r} by the card") from error

    def fingerprint_parts(self) -> dict[str, object]:
        """Return what identifies the files that decide a number, and how they are used."""
        weights = self.card.weights
        return {
            "source": (weights.source, weights.hub, weights.revision),
            "files": sorted(self._digests().items()),
            "options": sorted(self.options.model_dump(exclude_none=True).items()),
            "max_tokens": self.card.limits.max_tokens,
        }

    def _digests(self) -> dict[str, str]:
        weights = self.card.weights
        digests: dict[str, str] = dict(weights.files)
        if self.files.weights is not None:
            digests |= _digests(self.files.weights, digests)
        for path in self._own_paths:
            known = weights.own_files.get(path)
            digests[f"own:{path}"] = known or digest_of(self.files.folder / path)
        return digests

    @property
    def _own_paths(self) -> list[str]:
        adapter, changed = self.options.adapter, self.options.changed
        paths = [] if adapter is None else [f"{adapter}/{name}" for name in _ADAPTER]
        return paths if changed is None else [*paths, changed]

    @property
    def _has_own_files(self) -> bool:
        return self.options.adapter is not None or self.options.changed is not None

    @property
    def _name(self) -> str:
        if self.card.weights.source == "hub":
            return self.card.weights.hub or ""
        return str(self.files.weights)

    @property
    def _source(self) -> dict[str, Any]:
        source: dict[str, Any] = {"trust_remote_code": False}
        if self.card.weights.source == "hub":
            source["revision"] = self.card.weights.revision
        else:
            source["local_files_only"] = True
        if self.options.gguf_file is not None:
            source["gguf_file"] = self.options.gguf_file
        return source

    def _config(self) -> Any:
        with self._reading("config"):
            config = AutoConfig.from_pretrained(self._name, **self._source)
            refuse_quantised(config)
        if config.is_encoder_decoder:
            raise self._error(f"encoder-decoder checkpoints ({config.model_type}) are not served")
        options = self.options
        if options.num_labels is not None or options.labels is not None:
            config.num_labels = options.num_labels or len(options.labels or ())
        if options.num_hidden_layers is not None:
            _keep_layers(config, options.num_hidden_layers)
        return config

    def _stored_types(self) -> dict[str, str]:
        """Refuse files that no model can be read from; return the types of the others' tensors."""
        folder = self.files.weights
        if self.card.weights.source == "hub":
            self._verify_hub()
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

    def _verify_hub(self) -> None:
        weights = self.card.weights
        if weights.hub is None or weights.revision is None:
            raise self._error(
                "weights.hub and weights.revision belong together: copy the card's folder into a "
                "repository of your own and pin the commit you trust, in 40 hex digits"
            )
        for name, expected in weights.files.items():
            with self._reading(name):
                path = cached_file(weights.hub, name, revision=weights.revision)
            found = digest_of(Path(path or ""))
            if found != expected:
                raise self._error(f"{name!r} is not the file of the card ({found})")

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
        for name in _ADAPTER:
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

    def _without_words(self) -> CardError | None:
        """Return the error for a folder that lacks a fast tokenizer."""
        folder = self.files.weights
        if folder is None or not folder.is_dir() or (folder / "tokenizer.json").is_file():
            return None
        files = sorted(path.name for pattern in _WORDS for path in folder.glob(pattern))
        instead = f", only {', '.join(files)}" if files else ""
        return self._error(
            f"no tokenizer.json in {folder}{instead}: where the training ran (with sentencepiece "
            "installed), run AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER), and "
            "copy the files"
        )

    def _beside(self, name: str) -> Path:
        return self._inside(self.files.folder, name)

    def _inside(self, folder: Path, name: str) -> Path:
        try:
            return path_inside(folder, name)
        except ValueError as error:
            raise self._error(str(error)) from None

    def _reading(self, part: str, place: Path | None = None) -> Reading:
        return Reading(self.card.id, f"{part} at {str(place or self._name)!r}")

    def _error(self, text: str) -> CardError:
        return CardError(f"{self.card.id}: {text}")


def _digests(folder: Path, known: Mapping[str, str]) -> dict[str, str]:
    return {
        path.name: known.get(path.name) or digest_of(path)
        for path in sorted(folder.iterdir())
        if path.suffix in DECIDING_SUFFIXES and path.name != "card.toml"
    }


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
