"""A checkpoint's tokenizer and chat template, checked and ready to format items; without torch."""

from typing import Any

from assay_models.base import ItemError
from assay_models.card import CardError
from assay_models.families.classifier.chat_template import fixed_template, own_template
from assay_models.families.classifier.checkpoint_files import CheckpointFiles
from assay_models.families.classifier.load_errors import Reading
from assay_models.families.classifier.tokenization import PromptFormatter


def open_formatter(
    files: CheckpointFiles, tokenizer: Any, *, vocabulary_size: int, has_type_ids: bool
) -> PromptFormatter:
    """Return the formatter of a checkpoint.

    Args:
        files: the checkpoint's files.
        tokenizer: its tokenizer, which the formatter takes over.
        vocabulary_size: the number of the model's embeddings.
        has_type_ids: whether the model reads the segment of each token.

    Raises:
        CardError: the tokenizer or the template cannot be used, or the template writes something
            else than the card says.
    """
    card = files.card
    template = _template(files, tokenizer)
    with Reading(card.id, "tokenizer"):
        formatter = PromptFormatter.from_tokenizer(
            tokenizer,
            card.limits.max_tokens,
            vocabulary_size=vocabulary_size,
            has_type_ids=has_type_ids,
            chat_template=template,
        )
    _refuse_other_template(files, formatter)
    return formatter


def _template(files: CheckpointFiles, tokenizer: Any) -> str | None:
    with Reading(files.card.id, "chat template"):
        template = files.chat_template() or own_template(tokenizer)
        return fixed_template(template or "", files.options.date) or None


def _refuse_other_template(files: CheckpointFiles, formatter: PromptFormatter) -> None:
    card, options = files.card, files.options
    if options.rendering is None:
        return
    try:
        rendering = formatter.render_chat("q", "a")
    except ItemError as error:
        raise CardError(f"{card.id}: options.rendering: {error.detail}") from error
    if rendering != options.rendering:
        raise CardError(
            f"{card.id}: the chat template makes {rendering!r} of `q` and `a`, "
            f"options.rendering says {options.rendering!r}"
        )
