"""The table of families, each imported when its first model is loaded."""

import importlib
import sys
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal, Protocol, cast, get_args

from assay_models.base import Item, RewardModel
from assay_models.card import CardError, ModelCard
from assay_models.engines.listener import SILENT, EngineListener
from assay_models.items import (
    CodeExecItem,
    CodeItem,
    GradeAnswerItem,
    GroupVoteItem,
    Label,
    NliItem,
    RetrievalQppItem,
    TextItem,
    ToolCallMatchItem,
    VideoQppItem,
)
from assay_models.repository import ModelFiles


@dataclass(frozen=True, slots=True)
class Runtime:
    """The settings of a family's computation: torch's names of the device and of the dtype, whether
    a raw must be bit-equal in every batch, and the receiver of events of calls to engines."""

    device: str = "cpu"
    dtype: str = "float32"
    deterministic: bool = False
    engine_listener: EngineListener = SILENT


class Loader(Protocol):
    """The class that a family exports."""

    def load(self, card: ModelCard, files: ModelFiles, runtime: Runtime) -> RewardModel: ...


@dataclass(frozen=True, slots=True)
class Family:
    """One family of models.

    It has the module and class that compute it, the items that it takes, the field that varies
    between the candidates of one best-of-n request, an item that any of its models can score, and
    the names of the `numbers` that a request may choose. An engine `may`, `must` or can `never`
    compute its forward pass.
    """

    module: str
    loader: str
    _: KW_ONLY
    item: type[Item]
    candidate: str
    probe: Mapping[str, Any]
    numbers: frozenset[str] = frozenset()
    engine: Literal["never", "may", "must"] = "never"

    def load(self, card: ModelCard, files: ModelFiles, runtime: Runtime) -> RewardModel:
        """Import the family and load one of its models.

        Raises:
            CardError: a package that the family needs is not installed, the files do not fit, or
                one of them was changed while they were read.
        """
        self._check_engine(card)
        try:
            module = importlib.import_module(self.module)
        except ModuleNotFoundError as error:
            extra = "models" if card.engine is None else "engines"
            raise CardError(
                f"{card.id} needs the package {error.name!r}: in a checkout of Assay, "
                f"pip install '.[{extra}]'"
            ) from error
        model = cast(Loader, getattr(module, self.loader)).load(card, files, runtime)
        changed = files.stamps.changed()
        if changed is not None:
            raise CardError(
                f"{card.id}: {changed} was changed while it was read: never write into a served "
                "folder, put the files into a new one"
            )
        return model

    def _check_engine(self, card: ModelCard) -> None:
        if self.engine == "never" and card.engine is not None:
            raise CardError(
                f"{card.id}: models of the family {card.family} are computed here: remove [engine]"
            )
        if self.engine == "must" and card.engine is None:
            raise CardError(f"{card.id}: the family {card.family} needs a section [engine]")


# A program with and without the fence, so that every mode of extraction finds one.
_PROGRAM = '"""\n```python\ndef f(x):\n    return x + 1\n```\n"""'
_NLI_NUMBERS = frozenset(("min_confidence", *(f"weights.{label}" for label in get_args(Label))))
_PAIR = {"prompt": "one and one", "response": "two"}

FAMILIES = {
    "reference": Family(
        "assay_models.families.reference",
        "ReferenceModel",
        item=TextItem,
        candidate="response",
        probe=_PAIR,
    ),
    "sequence_classifier": Family(
        "assay_models.families.sequence_classifier",
        "SequenceClassifier",
        item=TextItem,
        candidate="response",
        probe=_PAIR,
        engine="may",
    ),
    "engine": Family(
        "assay_models.families.sequence_classifier",
        "SequenceClassifier",
        item=TextItem,
        candidate="response",
        probe=_PAIR,
        engine="must",
    ),
    "code": Family(
        "assay_models.families.code.model",
        "CodeModel",
        item=CodeItem,
        candidate="response",
        engine="may",
        probe={"prompt": "Add one.", "response": _PROGRAM},
    ),
    "code_exec": Family(
        "assay_models.families.code_exec.model",
        "CodeExecModel",
        item=CodeExecItem,
        candidate="response",
        probe={"response": _PROGRAM, "tests": "assert f(1)"},
    ),
    "grade_answer": Family(
        "assay_models.families.grade_answer.model",
        "GradeAnswerModel",
        item=GradeAnswerItem,
        candidate="response",
        probe={"response": r"So it is \boxed{42}.", "gold": "42", "answer_type": "number"},
    ),
    "group_vote": Family(
        "assay_models.families.group_vote.model",
        "GroupVoteModel",
        item=GroupVoteItem,
        candidate="response",
        probe={"answer": "1", "answer_type": "number", "peers": ["1", "2"]},
        numbers=frozenset(("group_size",)),
    ),
    "tool_call_match": Family(
        "assay_models.families.tool_call_match.model",
        "ToolCallMatchModel",
        item=ToolCallMatchItem,
        candidate="predicted",
        probe={"predicted": [{"name": "f"}], "gold": [{"name": "f"}]},
    ),
    "video_qpp": Family(
        "assay_models.families.qpp.pre_retrieval",
        "VideoQppModel",
        item=VideoQppItem,
        candidate="query",
        probe={"query": "a dog on a beach"},
    ),
    "retrieval_qpp": Family(
        "assay_models.families.qpp.post_retrieval",
        "RetrievalQppModel",
        item=RetrievalQppItem,
        candidate="query",
        probe={"query": "a dog on a beach", "results": [{"score": 2.0}, {"score": 1.0}]},
    ),
    "retrieval_nets": Family(
        "assay_models.families.qpp.post_retrieval_nets",
        "RetrievalNet",
        item=RetrievalQppItem,
        candidate="query",
        # Embeddings are as long as a model's own: each card has to show its example.
        probe={"query": "a dog on a beach", "results": [{"score": 2.0}, {"score": 1.0}]},
    ),
    "nli": Family(
        "assay_models.families.nli.model",
        "NliModel",
        item=NliItem,
        candidate="hypothesis",
        probe={"premise": "A dog runs.", "hypothesis": "An animal moves."},
        numbers=_NLI_NUMBERS,
        engine="may",
    ),
}


class DeviceMemory(Protocol):
    """The memory of a CUDA device, in the module of the families that use one."""

    def free_bytes(self, name: str) -> int: ...

    def release_memory(self) -> None: ...


def device_memory(device: str) -> DeviceMemory | None:
    """Return the memory of a device; None of a CPU, and before any model has imported torch."""
    if device == "cpu" or "torch" not in sys.modules:
        return None
    return cast(DeviceMemory, importlib.import_module("assay_models.families.classifier.device"))


def family_of(card: ModelCard) -> Family:
    """Return the family that a card names.

    Raises:
        CardError: there is no such family; the text lists the families.
    """
    try:
        return FAMILIES[card.family]
    except KeyError:
        known = ", ".join(sorted(FAMILIES))
        raise CardError(f"{card.id}: no family {card.family!r}; there are: {known}") from None
