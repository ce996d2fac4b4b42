"""Plain numbers, read exactly, and the marks that stand beside them."""

import re
from decimal import Context, Decimal
from fractions import Fraction
from typing import NamedTuple

MAX_DIGITS = 1000
"""Digits of a number, and the largest exponent of ten."""

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d{1,3}(?: \d{3})+|\d+)(?:\.\d*)?|\.\d+"
_DECIMAL = re.compile(
    rf"(?P<digits>{_DIGITS})(?:[eE](?P<e>[+-]?\d+)|"
    r"\s*(?:\\times|\\cdot|[\u00d7*\u00b7])\s*10\s*(?:\^|\*\*)\s*(?:\{\s*(?P<braced>[+-]?\d+)\s*\}|(?P<bare>[+-]?\d+)))?"
)
_FRACTION = re.compile(
    r"(?P<whole>\d+)?\s*\\frac\s*(?:\{\s*(?P<top>-?\d+)\s*\}\s*\{\s*(?P<bottom>-?\d+)\s*\}"
    r"|(?P<top1>\d)\s*(?P<bottom1>\d))"
    r"|(?:(?P<whole2>\d+)\s+)?(?P<top2>\d+)\s*/\s*(?P<bottom2>\d+)"
)
_REPEATING = re.compile(r"(\d*)\.(\d*)\\(?:overline|bar|dot)\s*\{?\s*(\d+)\s*\}?")
_BASE = re.compile(r"(-?[0-9A-F]+)\s*_\s*(?:\{\s*(?:\\text\{)?(\w+)\}?\s*\}|(\d))")
_SIGNS = re.compile(r"[+-]?\s*")
_PERCENT = r"\\?%|percent(?:age)?\b|per cent\b|pct\b|\\text\{\s*percent\s*\}"
_DEGREES = r"\^\s*\{?\s*\\circ\s*\}?|\\degree\b|°|degrees?\b|\\text\{\s*degrees?\s*\}"
_PREFIX = re.compile(r"(?P<sign>[+-]?)\s*(?P<currency>\\?\$|€|£|¥|\\pounds?|\\euro)\s*(?=[\d.])")
_NAMES = {"dollar": "$", "dollars": "$", "usd": "$", "euro": "€", "euros": "€", "eur": "€"}
_TEXT_UNIT = re.compile(
    r"(?P<base>.*\S)\s*\\(?:text|mathrm|textrm|textbf|textit|textnormal|mbox|rm)\s*"
    r"\{\s*(?P<unit>[^{}\\]{1,40})\}\s*(?P<power>\^\s*\{?\s*-?\d\s*\}?)?",
    re.DOTALL,
)
_PLAIN_UNIT = re.compile(
    r"(?P<base>.*?[\d}])\s*(?P<unit>[^\W\d_](?:[^\W\d_]|[ /·²³^]|(?<=\^)\d){0,39})", re.DOTALL
)
_UNITS = """
cm mm km kg mg lb lbs oz ft mi hr hrs min sec mph kph ml pm am cm^2 cm^3 m^2 m^3 km/h m/s
"""
_KNOWN_UNITS = frozenset(_UNITS.split())
_WORD = re.compile(r"[^\W\d_]{4,}(?: [^\W\d_]+)*")
_ANGLE = re.compile(r"(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
_NO_UNITS = frozenset(("e", "i", "d", "or", "and", "if", "for", "when", "where", "is", "to"))


class TooLarge(Exception):
    """A number has more digits, or a larger exponent, than is computed."""


class Marked(NamedTuple):
    """A text without the mark beside it (a unit, a currency, `%` or `°`; or nothing)."""

    base: str
    mark: str


def split_mark(text: str, *, is_number: bool) -> Marked:
    """Return a cleaned text and the mark beside it.

    A unit stays as it is stated: nothing is converted. Plain letters behind a number are its unit
    in an answer that is a number; in mathematics only a known unit or a word is. The base of a
    numeral (`101_2`) is a mark as well.
    """
    numeral = _BASE.fullmatch(text)
    if numeral is not None:
        return Marked(numeral[1], f"base {numeral[2] or numeral[3]}")
    prefix = _PREFIX.match(text)
    if prefix is not None:
        return Marked(prefix["sign"] + text[prefix.end() :], prefix["currency"].lstrip("\\"))
    for mark, pattern in (("%", _PERCENT), ("°", _DEGREES), ("$", r"\\?\$"), ("€", "€")):
        match = re.search(rf"\s*(?:{pattern})\Z", text, re.IGNORECASE)
        if match is not None and match.start() and not (mark == "°" and _ANGLE.search(text)):
            return Marked(text[: match.start()], mark)
    match = _TEXT_UNIT.fullmatch(text)
    if match is None or match["unit"].strip() in _NO_UNITS:
        match = _PLAIN_UNIT.fullmatch(text)
        if match is None or not (is_number or _is_unit(match["unit"])):
            return Marked(text, "")
        if read_number(match["base"]) is None:
            return Marked(text, "")
    return Marked(match["base"].strip(), _unit(match))


def read_number(text: str) -> Fraction | None:
    r"""Return the exact value of a cleaned text; None if it is no plain number.

    Decimals with or without separators of thousands (`1,234.5`), `1e3`, `1.5 \\times 10^3`, `1/2`,
    `\\frac{1}{2}` and mixed numbers (`1 1/2`, `1\\frac{1}{2}`) are plain numbers.

    Raises:
        TooLarge: it has more than `MAX_DIGITS` digits, or that large an exponent.
    """
    sign = _SIGNS.match(text)
    assert sign is not None
    rest = text[sign.end() :].strip()
    if not rest or not (rest[0].isdigit() or rest[0] in ".\\"):
        return None
    value = _decimal(rest)
    if value is None:
        value = _fraction(rest)
    if value is None:
        value = _repeating(rest)
    return -value if value is not None and text[0] == "-" else value


def exact_form(value: Fraction) -> str:
    """Return the canonical form of a rational number."""
    return str(value)


def rounded_form(value: Fraction, digits: int) -> str:
    """Return the canonical form of a number at a number of significant digits."""
    context = Context(prec=digits, Emin=-(10**6), Emax=10**6)
    quotient = context.divide(Decimal(value.numerator), Decimal(value.denominator))
    return exact_form(Fraction(quotient))


def _decimal(text: str) -> Fraction | None:
    match = _DECIMAL.fullmatch(text)
    if match is None:
        return None
    digits = match["digits"].replace(",", "").replace(" ", "")
    power = match["e"] or match["braced"] or match["bare"] or "0"
    if len(digits) > MAX_DIGITS or len(power) > 9 or abs(int(power)) > MAX_DIGITS:
        raise TooLarge
    return Fraction(digits) * Fraction(10) ** int(power)


def _fraction(text: str) -> Fraction | None:
    match = _FRACTION.fullmatch(text)
    if match is None:
        return None
    top = match["top"] or match["top1"] or match["top2"]
    bottom = match["bottom"] or match["bottom1"] or match["bottom2"]
    whole = match["whole"] or match["whole2"] or "0"
    if max(map(len, (top, bottom, whole))) > MAX_DIGITS:
        raise TooLarge
    if int(bottom) == 0 or (whole != "0" and "-" in top + bottom):
        return None
    return int(whole) + Fraction(int(top), int(bottom))


def _repeating(text: str) -> Fraction | None:
    """Return the value of a decimal whose last digits repeat for ever."""
    match = _REPEATING.fullmatch(text)
    if match is None:
        return None
    if len(text) > MAX_DIGITS:
        raise TooLarge
    start, period = len(match[2]), len(match[3])
    whole, longer = int((match[1] or "0") + match[2]), int((match[1] or "0") + match[2] + match[3])
    return Fraction(longer - whole, 10**start * (10**period - 1))


def _is_unit(text: str) -> bool:
    return text in _KNOWN_UNITS or _WORD.fullmatch(text) is not None


def _unit(match: re.Match[str]) -> str:
    power = (match.groupdict().get("power") or "").strip("^{} ")
    unit = " ".join(match["unit"].split())
    name = f"{unit}^{power}" if power else unit
    return _NAMES.get(name.lower(), name)
