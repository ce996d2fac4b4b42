"""The files of a card's checkpoint that need no torch: config, tokenizer, template and digests."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer
from transformers.utils.hub import cached_file

from assay_models.card import CardError, ModelCard
from assay_models.families.classifier.load_errors import Reading
from assay_models.families.classifier.options import ClassifierOptions
from assay_models.file_stamps import DECIDING_SUFFIXES
from assay_models.repository import ModelFiles, digest_of, path_inside

ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
_WORDS = ("*.model", "*.tiktoken", "vocab.*")


@dataclass(frozen=True, slots=True)
class CheckpointFiles:
    """One card's checkpoint as files, and the options for what of it is used."""

    card: ModelCard
    files: ModelFiles
    options: ClassifierOptions

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

    def read_config(self) -> Any:
        """Read the checkpoint's config, with the number of labels by the card.

        Raises:
            CardError: it cannot be read, or is an encoder-decoder's.
        """
        with self._reading("config"):
            config = AutoConfig.from_pretrained(self._name, **self._source)
        if config.is_encoder_decoder:
            raise self._error(f"encoder-decoder checkpoints ({config.model_type}) are not served")
        options = self.options
        if options.num_labels is not None or options.labels is not None:
            config.num_labels = options.num_labels or len(options.labels or ())
        return config

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
        paths = [] if adapter is None else [f"{adapter}/{name}" for name in ADAPTER]
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

    def verify_hub(self) -> None:
        """Check the digests of the files in the hub's cache.

        Raises:
            CardError: no revision is pinned, or a file is not the one of the card.
        """
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
