"""Scoring in this process: the service without its HTTP layer."""

import asyncio
import os
import platform
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from assay import __version__
from assay.api.components import components_of
from assay.app import create_app
from assay.errors import AssayError, InvalidRequest, Overloaded, RequestTooLarge
from assay.offline.scorer import (
    BatchTooLarge,
    Halted,
    Identity,
    ItemOutcome,
    ItemsRefused,
    Scorer,
    item_problems,
)
from assay.scoring.best_of_n import BestOfNCall, best_of_n
from assay.scoring.service import ScoreCall, ScoringService
from assay.served_model import ServedModel
from assay.settings import Settings
from assay.types import BestOfNReply
from assay_models.base import Options
from assay_models.repository import RepositoryEntry, fingerprint_of

BATCH_SECONDS = 86_400.0
BUSY_SECONDS = 1.0
# Those of the extra `models`, and the tokenizers that Transformers brings.
LIBRARIES = (
    "accelerate",
    "gguf",
    "jinja2",
    "livekit-blingfire",
    "numpy",
    "peft",
    "py3langid",
    "safetensors",
    "tokenizers",
    "torch",
    "transformers",
    "tree-sitter",
    "tree-sitter-c",
    "tree-sitter-cpp",
    "tree-sitter-go",
    "tree-sitter-java",
    "tree-sitter-javascript",
    "tree-sitter-python",
    "tree-sitter-rust",
    "tree-sitter-typescript",
)


@asynccontextmanager
async def running_service(settings: Settings) -> AsyncIterator[ScoringService]:
    """Run the service as `create_app` composes it, started and stopped as in a server.

    No runs are recorded, because a file of items belongs to none.

    Raises:
        SettingsError: see `create_app`.
    """
    app = create_app(settings.model_copy(update={"runs": "off"}))
    service = components_of(app).service
    lifespan = app.router.lifespan_context(app)
    await lifespan.__aenter__()
    try:
        yield service
    finally:
        # An error in the caller's block is not the service's: it shuts down normally.
        await lifespan.__aexit__(None, None, None)


async def rank_locally(settings: Settings, model: str, call: BestOfNCall) -> BestOfNReply:
    """Rank candidates with a model that is loaded for this call.

    Raises:
        SettingsError: see `create_app`.
        Halted: the model does not load, or the call is rejected; the text says why.
    """
    async with running_service(settings) as service:
        served = service.find(model)
        await _require_loaded(served)
        try:
            return await best_of_n(service, call)
        except AssayError as error:
            is_usage_error = 400 <= error.status < 500
            raise Halted(error.detail, error.hint, is_usage_error=is_usage_error) from error


async def _require_loaded(served: ServedModel) -> None:
    await served.loaded()
    reason = served.failure or served.unproven
    if reason is not None:
        raise Halted(f"{served.id} could not be loaded: {reason}")


@asynccontextmanager
async def local_scorer(settings: Settings, model: str, options: Options) -> AsyncIterator[Scorer]:
    """Provide a scorer whose model stays loaded within the context.

    Raises:
        SettingsError: see `create_app`.
        Halted: the model does not load; the text says why.
    """
    async with running_service(settings) as service:
        served = service.find(model)
        await _require_loaded(served)
        if served.require_ready().model.sees == "group":
            # A batch may end in the middle of a group, which would change the scores.
            reason = f"{model} scores whole groups, a file is cut into batches"
            raise Halted(reason, is_usage_error=True)
        yield LocalScorer(service, model, options)


def setup_of(settings: Settings, entry: RepositoryEntry, options: Options) -> str:
    """Return a digest of all that decides a local model's numbers, without loading the model.

    Weights in a folder count by the sizes and times of their files, others by the revision or
    version that the card pins, and code by the versions of Python, Assay and the libraries.
    """
    weights = entry.card.weights
    parts = {
        "versions": _versions(),
        "card": entry.card.model_dump_json(),
        "files": sorted(_file_stats(entry.folder, entry.folder / weights.path)),
        "options": options,
        "settings": (settings.dtype, settings.device, settings.deterministic),
    }
    return fingerprint_of(parts).removeprefix("sha256:")[:16]


def _versions() -> list[tuple[str, str | None]]:
    """Return the versions that decide numbers, None where a library is absent, importing none."""
    own = [("assay", __version__), (platform.python_implementation(), platform.python_version())]
    return [*own, *((name, _installed_version(name)) for name in LIBRARIES)]


def _installed_version(library: str) -> str | None:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None


def _file_stats(*folders: Path) -> Iterator[tuple[str, int, int]]:
    """Yield the path, size and time of each file; a folder that links lead to again counts once."""
    visited: set[str] = set()
    for folder in folders:
        for root, subfolders, names in os.walk(folder, followlinks=True):
            real = os.path.realpath(root)
            if real in visited:
                subfolders.clear()
                continue
            visited.add(real)
            subfolders.sort()  # of two links to a folder, the same counts in each run
            for path in (Path(root, name) for name in names if name != "card.toml"):
                try:
                    stat = path.stat()
                except OSError:  # a link to nothing, as editors leave them, or to itself
                    continue
                yield str(path.relative_to(folder)), stat.st_size, stat.st_mtime_ns


@dataclass(frozen=True, slots=True)
class LocalScorer:
    """Scorer with a model of this process."""

    service: ScoringService
    model: str
    options: Options

    async def __call__(self, items: Sequence[Mapping[str, Any]]) -> list[ItemOutcome]:
        """Return the outcome of each item, waiting while the queue is full."""
        call = ScoreCall(self.model, items, self.options, timeout=BATCH_SECONDS, lane="bulk")
        while True:
            try:
                reply = await self.service.score(call)
            except Overloaded as error:
                await asyncio.sleep(error.retry_after or BUSY_SECONDS)
            except AssayError as error:
                raise _translate(error) from error
            else:
                identity = Identity(reply.model, reply.fingerprint)
                return [ItemOutcome(result, identity) for result in reply.results]


def _translate(error: AssayError) -> Exception:
    if isinstance(error, InvalidRequest) and (problems := item_problems(error.problems or [])):
        return ItemsRefused(problems)
    if isinstance(error, RequestTooLarge):
        return BatchTooLarge(error.detail)
    return Halted(error.detail, error.hint)
