"""Numbers and expressions by their values; imported in worker processes alone."""

import hashlib
from fractions import Fraction
from typing import Any

import mpmath
import sympy

POINTS = 3
PRECISION = 50
"""Decimal digits that are computed."""

DIGITS = 25
"""Significant digits of a form. The others absorb the errors of rounding."""

MAX_DENOMINATOR = 10**9
"""A value within 10^-35 of a fraction with a denominator up to this is that fraction: 3 and
`log_2 8` are one number."""

ERRORS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    sympy.SympifyError,
)
"""The errors of SymPy for an expression that it cannot compute."""

_TOLERANCE = 35


class Unusable(Exception):
    """A value that has no form, such as 1/0."""


def number_form(value: Any) -> str:
    """Return the form of a number: exact if it is rational, else its value.

    Raises:
        Unusable: it has no value.
    """
    if value.is_Rational:
        return str(value)
    if value in (sympy.oo, -sympy.oo):
        return str(value)
    return _complex_form(_evaluated(value, {}))


def values_form(value: Any) -> str:
    """Return the form of an expression with symbols: its values at fixed points.

    Raises:
        Unusable: it has no value there.
    """
    forms = [_complex_form(number) for number in _values(value)]
    return forms[0] if len(set(forms)) == 1 else (f"expr:{';'.join(forms)}")


def ratio_form(value: Any, *, is_signed: bool) -> str:
    """Return the form of an expression up to a constant factor; a positive one if it `is_signed`.

    Raises:
        Unusable: it has no value at the points.
    """
    with mpmath.workdps(PRECISION):
        numbers = _values(value)
        scale = next((n for n in numbers if abs(n) > mpmath.mpf(10) ** -_TOLERANCE), None)
        if scale is None:
            return "0"
        scale = abs(scale) if is_signed else scale
        return ";".join(_complex_form(number / scale) for number in numbers)


def _values(value: Any) -> list[Any]:
    return [
        _evaluated(value, {symbol: _point(symbol.name, index) for symbol in value.free_symbols})
        for index in range(POINTS)
    ]


def _point(name: str, index: int) -> Any:
    """Return a symbol's value: positive at the first point, of either sign at the others."""
    digest = hashlib.sha256(f"{name}/{index}".encode(errors="replace")).digest()
    value = sympy.Rational(1, 2) + sympy.Rational(int.from_bytes(digest[:8]), 2**63)
    return -value if index and digest[8] % 2 else value


def _evaluated(value: Any, point: dict[Any, Any]) -> Any:
    result = value.evalf(PRECISION, subs=point) if point else value.evalf(PRECISION)
    real, imaginary = result.as_real_imag()
    if not (real.is_Number and imaginary.is_Number and real.is_finite and imaginary.is_finite):
        raise Unusable("no number")
    with mpmath.workdps(PRECISION):
        return mpmath.mpc(_mpf(real), _mpf(imaginary))


def _mpf(number: Any) -> Any:
    return mpmath.mpf(number.p) / number.q if number.is_Rational else mpmath.mpf(number._mpf_)


def _complex_form(number: Any) -> str:
    with mpmath.workdps(PRECISION):
        size = max(abs(number), mpmath.mpf(1))
        real, imaginary = _real_form(number.real, size), _real_form(number.imag, size)
    return real if imaginary == "0" else f"{real}+{imaginary}i"


def _real_form(number: Any, size: Any) -> str:
    if abs(number) < size * mpmath.mpf(10) ** -_TOLERANCE:
        return "0"
    fraction = _near_fraction(number)
    return mpmath.nstr(number, DIGITS, strip_zeros=False) if fraction is None else (str(fraction))


def _near_fraction(number: Any) -> Fraction | None:
    if abs(number) > mpmath.mpf(10) ** (PRECISION - _TOLERANCE):
        return None
    sign, mantissa, exponent, _ = number._mpf_
    exact = Fraction(-int(mantissa) if sign else int(mantissa)) * Fraction(2) ** int(exponent)
    near = exact.limit_denominator(MAX_DENOMINATOR)
    return near if abs(exact - near) < Fraction(1, 10**_TOLERANCE) else None
