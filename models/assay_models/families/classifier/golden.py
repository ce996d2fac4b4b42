"""Checks of the numbers that a checkpoint's publisher printed beside its texts."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from transformers.utils.hub import cached_file

from assay_models.base import ItemError
from assay_models.card import CardError, Golden, ModelCard
from assay_models.families.classifier.model import Classifier
from assay_models.items import Message
from assay_models.repository import ModelFiles, path_inside

_BLOCK = re.compile(r"^(`{3,})python[^\n]*\n(.*?)^\1", re.DOTALL | re.MULTILINE)


def check_golden(card: ModelCard, files: ModelFiles, classifier: Classifier) -> None:
    """Compute the raws of the card's `golden`, if it has one, and compare them.

    The texts stand as string constants in the Python blocks of the publisher's file. They are read
    as they are, as the message of the user and that of the assistant.

    Raises:
        CardError: the file or a name is missing, or a number differs by more than the tolerance.
    """
    golden = card.golden
    if golden is None:
        return
    known = dict(_constants(_text(card, files, golden)))
    missing = [name for name in (golden.prompt, *golden.raws) if name not in known]
    if missing:
        raise CardError(f"{card.id}: golden: {golden.file} sets no text {missing[0]!r}")
    for name, expected in golden.raws.items():
        messages = (
            Message(role="user", content=known[golden.prompt]),
            Message(role="assistant", content=known[name]),
        )
        try:
            sequence = classifier.encode_chat(messages, "error")
        except ItemError as error:
            raise CardError(f"{card.id}: golden: {name}: {error.detail}") from error
        ((raw, *_),) = classifier.logits([sequence.input()])
        if not abs(raw - expected) <= golden.tolerance:
            raise CardError(
                f"{card.id}: golden: {name} scores {raw:.4f}, its publisher printed {expected:.4f}"
            )


def _text(card: ModelCard, files: ModelFiles, golden: Golden) -> str:
    weights = card.weights
    try:
        if weights.source == "hub":
            path = cached_file(weights.hub or "", golden.file, revision=weights.revision)
        else:
            path = str(path_inside(files.weights or files.folder, golden.file))
        return Path(path or "").read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise CardError(f"{card.id}: golden: {golden.file} cannot be read") from error


def _constants(text: str) -> Iterator[tuple[str, str]]:
    for _, block in _BLOCK.findall(text):
        try:
            tree = ast.parse(block)
        except (SyntaxError, ValueError):
            continue
        for node in tree.body:
            if (
                isinstance(node, ast.Assign)
                and isinstance(node.targets[0], ast.Name)
                and isinstance(node.value, ast.Constant)
                and isinstance(node.value.value, str)
            ):
                yield node.targets[0].id, node.value.value
