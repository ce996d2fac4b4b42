"""The program of a response, found and checked in processes that may die; or the item's error."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from assay_models.base import ItemError
from assay_models.card import CardError
from assay_models.extraction import MAX_CHARACTERS, Extracted, Extraction, Language, extract
from assay_models.extraction.languages import missing_grammars, parser_versions
from assay_models.extraction.pool import Parsers, ParserUnavailable


@dataclass(frozen=True, slots=True)
class Programs:
    """Where in a response the program is, and which languages it may be in."""

    extraction: Extraction
    languages: tuple[Language, ...]
    parsers: Parsers = field(default_factory=Parsers)

    @classmethod
    def of(cls, card: str, extraction: Extraction, languages: tuple[Language, ...]) -> "Programs":
        """Those of the card of that id.

        Raises:
            CardError: a grammar is not installed.
        """
        missing = missing_grammars(languages)
        if missing:
            raise CardError(f"{card} needs {', '.join(missing)}: pip install 'assay[models]'")
        return cls(extraction, languages)

    @property
    def fingerprint_parts(self) -> Mapping[str, object]:
        """All that decides what counts as a program."""
        return {
            "extraction": self.extraction,
            "languages": sorted(self.languages),
            "parser": parser_versions(self.languages),
        }

    def found(
        self, text: str, language: str | None = None, extraction: Extraction | None = None
    ) -> Extracted:
        """The program in a text, or the reason why there is none (see `extract`).

        Raises:
            ItemError: it is too long to be parsed, or no parser is to be had.
        """
        mode = extraction or self.extraction
        try:
            found = extract(text, mode, language, self.languages, self.parsers.judge)
        except ParserUnavailable as error:
            detail = f"the program could not be checked: {error}; send it again"
            raise ItemError("parser_unavailable", detail) from error
        if found.reason == "too_large":
            detail = f"the program has more than {MAX_CHARACTERS} characters: shorten it"
            raise ItemError("input_too_long", detail)
        return found


def flags_of(found: Extracted) -> tuple[str, ...]:
    """What is unusual about a program."""
    flags = {
        "invalid_code": found.code is None,
        "trivial_code": found.reason == "trivial",
        "hidden_characters": found.hidden > 0,
    }
    return tuple(flag for flag, is_set in flags.items() if is_set)


def details_of(found: Extracted) -> dict[str, Any]:
    """The reason, the language and the number of hidden characters, as an item's details."""
    details: dict[str, Any] = {"extraction": found.reason}
    if found.language is not None:
        details["language"] = found.language
    if found.hidden:
        details["hidden_characters"] = found.hidden
    return details
