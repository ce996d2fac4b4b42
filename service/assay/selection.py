"""The selection of models: the repository of the settings, the entries that they name, and the
models that are served for them."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from assay.batching.batcher import BatchLimits, DynamicBatcher
from assay.errors import SettingsError
from assay.lifecycle.table import ModelTable
from assay.metrics import Metrics
from assay.served_model import ServedModel
from assay.settings import Settings
from assay.types import Clock
from assay_models.card import CardError, ModelCard
from assay_models.repository import (
    CardUnreadable,
    ModelNotFound,
    ModelRepository,
    RepositoryEntry,
    card_folders,
    embedded_root,
)

logger = logging.getLogger(__name__)

# On a CPU larger batches are no faster, and make the next one wait longer.
CPU_BATCH_TOKENS = 4096


def open_repository(settings: Settings) -> ModelRepository:
    """Return the repository of the embedded cards and of the cards in the configured folders.

    Raises:
        SettingsError: a folder does not exist or holds no card.
    """
    for root in settings.repository:
        _check_has_cards(root)
    return ModelRepository([embedded_root(), *settings.repository])


def _check_has_cards(root: Path) -> None:
    if card_folders(root):
        return
    problem = "holds no NAME/VERSION/card.toml" if root.is_dir() else "does not exist"
    raise SettingsError(
        f"ASSAY_REPOSITORY: the folder {root} {problem}",
        hint="name a folder that holds NAME/VERSION/card.toml for each of your models",
    )


def select_entries(settings: Settings, repository: ModelRepository) -> list[RepositoryEntry]:
    """Return the models to serve: those named, or all embedded ones and all of the user's own.

    Raises:
        SettingsError: a name is not in the repository, or the card of a model to serve cannot be
            read.
    """
    if settings.models:
        return _named_entries(settings.models, repository)
    own = [folder.resolve() for folder in settings.repository]
    try:
        entries = [repository.find(card.id) for card in repository.cards()]
    except CardError as error:
        hint = "mend the card, or name the models to serve in ASSAY_MODELS"
        raise SettingsError(str(error), hint=hint) from error
    return [
        entry
        for entry in entries
        if entry.card.embedded or any(entry.folder.resolve().is_relative_to(root) for root in own)
    ]


def _named_entries(names: Sequence[str], repository: ModelRepository) -> list[RepositoryEntry]:
    try:
        entries = [repository.find(name) for name in names]
    except CardUnreadable as error:
        hint = "mend the card, or take its model out of ASSAY_MODELS"
        raise SettingsError(str(error), hint=hint) from error
    except ModelNotFound as error:
        raise SettingsError(f"ASSAY_MODELS: {error}") from error
    for fault in repository.faults:
        logger.warning("a model that is not served has no readable card: %s", fault)
    return entries


def create_table(
    entries: Sequence[RepositoryEntry], create: Callable[[RepositoryEntry], ServedModel]
) -> ModelTable:
    """Return the table of the models that a server starts with.

    Raises:
        SettingsError: there are none, or a card cannot be used.
    """
    if not entries:
        raise SettingsError("no model to serve", hint="set ASSAY_MODELS or ASSAY_REPOSITORY")
    try:
        return ModelTable(map(create, entries))
    except CardError as error:
        raise SettingsError(str(error)) from error


def create_model(
    settings: Settings,
    metrics: Metrics,
    clock: Clock,
    create_batcher: Callable[..., DynamicBatcher],
    entry: RepositoryEntry,
    on_death: Callable[[str], None],
) -> ServedModel:
    """Return the model of a card, within the bounds of the settings.

    Raises:
        CardError: the card cannot be used.
    """
    return ServedModel(
        entry=entry,
        limits=batch_limits(settings, entry.card),
        metrics=metrics,
        clock=clock,
        load_timeout=settings.load_timeout,
        on_death=on_death,
        create_batcher=create_batcher,
    )


def batch_limits(settings: Settings, card: ModelCard) -> BatchLimits:
    """Return the bounds of a model's batches and queue: by its engine, or by device and card."""
    limits, engine = card.limits, card.engine
    if engine is not None:
        tokens, items = engine.batch_bounds
        return BatchLimits(
            min(settings.batch_tokens or tokens, tokens),
            items,
            settings.max_queue_tokens,
            max_awaited=engine.max_calls * len(engine.urls),
        )
    maximum = limits.max_batch_tokens
    wanted = settings.batch_tokens or (CPU_BATCH_TOKENS if settings.device == "cpu" else maximum)
    return BatchLimits(min(wanted, maximum), limits.max_batch_size, settings.max_queue_tokens)
