"""The program of a response, extracted and parsed in worker processes, or the item's error."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from assay_models.base import ItemError
from assay_models.card import CardError
from assay_models.extraction import MAX_CHARACTERS, Extracted, Extraction, Language, extract
from assay_models.extraction.languages import SyntaxRule, missing_grammars, parser_versions
from assay_models.extraction.pool import ParserPool, ParserUnavailable
from assay_models.extraction.solution import VERSION


@dataclass(frozen=True, slots=True)
class ProgramExtractor:
    """The extraction of programs: their place in a response, and their languages."""

    extraction: Extraction
    languages: tuple[Language, ...]
    parsers: ParserPool = field(default_factory=ParserPool)

    @classmethod
    def for_card(
        cls, card: str, extraction: Extraction, languages: tuple[Language, ...]
    ) -> "ProgramExtractor":
        """Build the extractor of the card with that id.

        Raises:
            CardError: a grammar is not installed.
        """
        missing = missing_grammars(languages, _syntax_rule(extraction))
        if missing:
            raise CardError(
                f"{card} needs {', '.join(missing)}: in a checkout of Assay, "
                "pip install '.[models]'"
            )
        return cls(extraction, languages)

    @property
    def fingerprint_parts(self) -> Mapping[str, object]:
        """The settings and parser versions that decide what counts as a program."""
        rule = _syntax_rule(self.extraction)
        parts = {
            "extraction": self.extraction,
            "languages": sorted(self.languages),
            "parser": parser_versions(self.languages, rule),
        }
        return parts if rule == "paper" else {**parts, "extraction_version": VERSION}

    def extract(
        self,
        text: str,
        language: str | None = None,
        extraction: Extraction | None = None,
        asked: frozenset[str] = frozenset(),
    ) -> Extracted:
        """Extract the program of a text, or the reason why there is none (see `extract`).

        Raises:
            ItemError: it is too long to be parsed, or no parser is available.
        """
        try:
            extracted = extract(
                text,
                extraction or self.extraction,
                language=language,
                languages=self.languages,
                asked=asked,
                check=self.parsers.check_syntax,
            )
        except ParserUnavailable as error:
            detail = f"the program could not be checked: {error}; send it again"
            raise ItemError("parser_unavailable", detail) from error
        if extracted.reason == "too_large":
            detail = f"the program has more than {MAX_CHARACTERS} characters: shorten it"
            raise ItemError("input_too_long", detail)
        return extracted


def _syntax_rule(extraction: Extraction) -> SyntaxRule:
    return "language" if extraction == "solution" else "paper"


def extraction_flags(extracted: Extracted) -> tuple[str, ...]:
    """Return the flags of a program: `invalid_code`, `trivial_code`, `hidden_characters`."""
    flags = {
        "invalid_code": extracted.code is None,
        "trivial_code": extracted.reason == "trivial",
        "hidden_characters": extracted.hidden > 0,
    }
    return tuple(flag for flag, is_set in flags.items() if is_set)


def extraction_details(extracted: Extracted) -> dict[str, Any]:
    """Return the reason, the language, the block that was taken among several and why, and the
    number of hidden characters, as item details."""
    details: dict[str, Any] = {"extraction": extracted.reason}
    if extracted.language is not None:
        details["language"] = extracted.language
    if extracted.choice is not None:
        details["chosen_by"] = extracted.choice.chosen_by
        if extracted.choice.blocks:
            details["block"], details["blocks"] = extracted.choice.block, extracted.choice.blocks
    if extracted.hidden:
        details["hidden_characters"] = extracted.hidden
    return details
