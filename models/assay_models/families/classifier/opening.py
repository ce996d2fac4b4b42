"""One way to open a card's classifier, computed on a device here or by an engine elsewhere."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from assay_models.base import Input, Truncation
from assay_models.card import ModelCard
from assay_models.families.classifier.check import Check
from assay_models.families.classifier.outputs import Outputs
from assay_models.families.classifier.token_sequence import TokenSequence
from assay_models.families.classifier.tokenization import (
    PromptFormatter,
    SpecialTokens,
)
from assay_models.items import Message
from assay_models.proof import Proof
from assay_models.registry import Runtime
from assay_models.repository import ModelFiles

Logits = Any
"""The logits of some inputs: a device's as a list of raws, an engine's as an awaitable of such a
list, with the error of an input in the place of its raw. `Classifier.runs` says which."""


class Classifier(Protocol):
    """A sequence classifier. `fingerprint_parts` name all that decides a raw; a family adds its own
    and digests them. `proof` shows that an engine computes the logits right; None on a device."""

    @property
    def runs(self) -> Literal["device", "remote"]:
        """Whether `logits` returns numbers, or something to await."""
        ...

    @property
    def fingerprint_parts(self) -> Mapping[str, object]:
        """All that decides a raw, by name."""
        ...

    @property
    def outputs(self) -> Outputs:
        """The outputs, in the order of the logits."""
        ...

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the logits, in their order."""
        ...

    @property
    def config(self) -> Any:
        """The checkpoint's config, as Transformers reads it."""
        ...

    @property
    def formatter(self) -> PromptFormatter:
        """The tokenizer and the chat template."""
        ...

    @property
    def tokenizer(self) -> Any:
        """The checkpoint's tokenizer."""
        ...

    @property
    def proof(self) -> Proof | None:
        """The proof of an engine's numbers."""
        ...

    def require(self, check: Check) -> None:
        """Compute a check before the model is served; see `Check`."""
        ...

    def encode_text(
        self,
        text: str,
        text_pair: str | None,
        truncation: Truncation,
        special_tokens: SpecialTokens = "literal",
    ) -> TokenSequence:
        """Encode a text or a pair; see `PromptFormatter.encode_text`."""
        ...

    def encode_chat(
        self,
        messages: Sequence[Message],
        truncation: Truncation,
        *,
        escape_control_tokens: bool = False,
    ) -> TokenSequence:
        """Encode a conversation; see `PromptFormatter.encode_chat`."""
        ...

    def cost(self, inputs: Sequence[Input]) -> int:
        """Return the number of tokens that one forward pass of these computes."""
        ...

    def logits(self, inputs: Sequence[Input]) -> Logits:
        """Compute the fp32 logits of each input."""
        ...


def open_classifier(card: ModelCard, files: ModelFiles, runtime: Runtime) -> Classifier:
    """Open the classifier of a card: its engine's where it names one, else one on a device here.

    Only the latter imports torch.

    Raises:
        CardError: an option, a file or a weight is missing or does not fit.
    """
    if card.engine is None:
        from assay_models.families.classifier.model import LocalClassifier

        return LocalClassifier.load(card, files, runtime)
    from assay_models.families.classifier.remote import RemoteClassifier

    return RemoteClassifier.open(card, files, runtime)
