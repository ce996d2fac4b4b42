"""Checks of the numbers that a checkpoint's publisher printed beside its texts."""

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from transformers.utils.hub import cached_file

from assay_models.base import Input, ItemError, Raw
from assay_models.card import CardError, Golden, ModelCard
from assay_models.families.classifier.check import Check
from assay_models.families.classifier.tokenization import PromptFormatter
from assay_models.items import Message
from assay_models.repository import ModelFiles, path_inside

_BLOCK = re.compile(r"^(`{3,})python[^\n]*\n(.*?)^\1", re.DOTALL | re.MULTILINE)


def golden_check(card: ModelCard, files: ModelFiles, formatter: PromptFormatter) -> Check | None:
    """Return the check of the card's `golden`; None if it has none.

    The texts stand as string constants in the Python blocks of the publisher's file. They are read
    as they are, as the message of the user and that of the assistant.

    Raises:
        CardError: the file or a name is missing, or a text cannot be encoded. The check raises it
            where a number differs by more than the tolerance.
    """
    golden = card.golden
    if golden is None:
        return None
    known = dict(_constants(_text(card, files, golden)))
    missing = [name for name in (golden.prompt, *golden.raws) if name not in known]
    if missing:
        raise CardError(f"{card.id}: golden: {golden.file} sets no text {missing[0]!r}")
    inputs = [_encoded(card, formatter, known[golden.prompt], known, name) for name in golden.raws]
    return Check(tuple(inputs), partial(_verify, card, golden))


def _encoded(
    card: ModelCard, formatter: PromptFormatter, prompt: str, known: Mapping[str, str], name: str
) -> Input:
    messages = (
        Message(role="user", content=prompt),
        Message(role="assistant", content=known[name]),
    )
    try:
        return formatter.encode_chat(messages, "error").input()
    except ItemError as error:
        raise CardError(f"{card.id}: golden: {name}: {error.detail}") from error


def _verify(card: ModelCard, golden: Golden, raws: Sequence[Raw]) -> None:
    for (name, expected), (raw, *_) in zip(golden.raws.items(), raws, strict=True):
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
