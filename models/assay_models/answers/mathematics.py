"""Canonical forms of mathematical texts; imported in worker processes alone.

A rational number's form is exact; any other number's is its value to `DIGITS` digits. An expression
with symbols is taken by its values at fixed points: two different polynomials of degree d agree at
a random point of a set S with a probability of at most d / |S| (Schwartz 1980, Zippel 1979), here
with |S| = 2^64 and three points. Equations are taken up to a constant factor, inequalities up to a
positive one, and those of one variable as the set of their solutions.
"""

import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import sympy
from latex2sympy2_extended.math_normalization import NormalizationConfig
from math_verify import parse
from math_verify.parser import LatexExtractionConfig
from sympy.core.function import AppliedUndef
from sympy.core.relational import Relational
from sympy.logic.boolalg import And, BooleanFalse, BooleanTrue, Or

from assay_models.answers.numbers import exact_form, read_number
from assay_models.answers.structures import bounded_form, set_form, split_list, structured_form
from assay_models.answers.values import ERRORS, Unusable, number_form, ratio_form, values_form

_CONFIG = (
    LatexExtractionConfig(
        boxed_match_priority=-1,
        normalization_config=NormalizationConfig(
            basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none"
        ),
    ),
)
_NAMED_SETS = (sympy.S.Integers, sympy.S.Naturals, sympy.S.Naturals0, sympy.S.Rationals)
_CONJUNCTION = re.compile(r"\s*\\land(?![A-Za-z])\s*")
_RELATION = re.compile(r"[<>]|\\(?:le|ge|ne)(?![A-Za-z])")
_LIST_OR_RELATION = re.compile(r"[,;<>\[\]]|\\(?:le|ge|ne|in|begin|cases|[{}])(?![A-Za-z])")


def warm_up() -> None:
    """Parse texts once, so that no request pays for the tables that parsers build."""
    sys.set_int_max_str_digits(0)
    for text in (r"\frac{1}{2}+\sqrt{x}", r"(1,2]", r"\begin{pmatrix}1\\2\end{pmatrix}", "1<x<2"):
        canonical_form(text)


def canonical_form(latex: str) -> str | None:
    """Return the canonical form of a text (see `latex.as_latex`); None if it is no mathematics."""
    try:
        return bounded_form(_text_form(latex))
    except (*ERRORS, Unusable):
        return None


def _text_form(latex: str) -> str:
    if _CONJUNCTION.search(latex) and _RELATION.search(latex):
        parts = [_parsed(part) for part in _CONJUNCTION.split(latex)]
        if all(isinstance(part, Relational | And) for part in parts):
            return _relation_form(And(*parts, evaluate=False))
    latex = _CONJUNCTION.sub(",", latex)
    if r"\pm" in latex:
        return set_form({_text_form(part) for part in _with_signs(latex)})
    return structured_form(latex, _leaf) or _form(_parsed(latex))


def _leaf(latex: str) -> str | None:
    """Return the form of a part of a structure, as `canonical_form` does."""
    value = read_number(latex)
    if value is not None:
        return exact_form(value)
    try:
        return _text_form(latex)
    except (*ERRORS, Unusable):
        return None


def _with_signs(latex: str) -> Iterator[str]:
    """Yield the members of a list, each with the upper and with the lower signs."""
    for part in split_list(latex):
        yield part.replace(r"\pm", "+").replace(r"\mp", "-")
        yield part.replace(r"\pm", "-").replace(r"\mp", "+")


def _parsed(latex: str) -> Any:
    sides = split_list(latex, "=")
    if len(sides) == 2 and not _LIST_OR_RELATION.search(latex):
        left, right = map(_parsed, sides)
        if isinstance(left, sympy.Expr) and isinstance(right, sympy.Expr):
            return sympy.Eq(left, right, evaluate=False)
    parsed = parse(f"${latex}$", _CONFIG, fallback_mode="no_fallback", parsing_timeout=None)
    if not parsed:
        raise Unusable("no mathematics")
    return parsed[0]


def _form(value: Any) -> str:
    if isinstance(value, sympy.MatrixBase):
        rows = (",".join(map(_form, value.row(row))) for row in range(value.rows))
        return f"matrix[{';'.join(rows)}]"
    if isinstance(value, sympy.Tuple | tuple | list):
        return f"({','.join(map(_form, value))})"
    if isinstance(value, BooleanTrue | BooleanFalse | bool):
        return f"text:{str(bool(value)).lower()}"
    if isinstance(value, sympy.Set):
        return _set_form(value)
    if isinstance(value, Relational | And | Or):
        return _relation_form(value)
    if not isinstance(value, sympy.Expr):
        raise Unusable(type(value).__name__)
    return _expression_form(value)


def _expression_form(value: sympy.Expr) -> str:
    value = _prepared(value)
    if isinstance(value, sympy.Set | Relational | sympy.MatrixBase | sympy.Tuple):
        return _form(value)
    return values_form(value) if value.free_symbols else number_form(value)


def _prepared(value: Any) -> Any:
    """Return an expression with sums, integrals and limits computed."""
    value = _replaced(sympy.sympify(value))
    units = {unit: sympy.I for unit in value.free_symbols if unit.name == "i"}
    names = {letter: sympy.E for letter in value.free_symbols if letter.name == "e"}
    return value.xreplace({**units, **names}).doit()


def _replaced(value: Any) -> Any:
    """Return a value with decimals as fractions, and unknown functions as symbols."""
    floats = {number: sympy.Rational(repr(float(number))) for number in value.atoms(sympy.Float)}
    functions = {call: sympy.Symbol(str(call)) for call in value.atoms(AppliedUndef)}
    return value.xreplace({**floats, **functions})


def _set_form(value: sympy.Set) -> str:
    if value is sympy.S.Reals:
        value = sympy.Interval(-sympy.oo, sympy.oo)
    if isinstance(value, sympy.FiniteSet):
        return _list_form(list(value.args))
    if isinstance(value, sympy.Interval):
        opening, closing = "(" if value.left_open else "[", ")" if value.right_open else "]"
        return f"{opening}{_form(value.start)},{_form(value.end)}{closing}"
    if isinstance(value, sympy.Union):
        return f"union{{{_joined(value.args)}}}"
    if value is sympy.S.EmptySet:
        return "{}"
    if isinstance(value, sympy.Complement):
        return f"complement{{{_form(value.args[0])},{_form(value.args[1])}}}"
    if value in _NAMED_SETS:
        return f"set:{value}"
    raise Unusable(type(value).__name__)


def _list_form(members: list[Any]) -> str:
    """Return the form of members in any order; `x = 1` or `x = 2` are those of 1 and 2."""
    if all(
        isinstance(member, Relational) and not isinstance(member, sympy.Eq) for member in members
    ):
        return _relation_form(Or(*members, evaluate=False))
    names = [str(member.lhs) for member in members if isinstance(member, sympy.Eq)]
    is_one = len(names) == len(members) and _name_one(names)
    forms = {_form(member.rhs) if is_one else _member_form(member) for member in members}
    return set_form(forms)


def _name_one(names: list[str]) -> bool:
    """Return whether names are those of one unknown: `x` and `x`, or `x_1` and `x_2`."""
    parts = {name.rpartition("_")[::2] for name in names}
    numbers = sorted(number for _, number in parts)
    is_counted = numbers == [str(number + 1) for number in range(len(names))]
    return len(set(names)) == 1 or (is_counted and len({base for base, _ in parts}) == 1)


def _member_form(member: Any) -> str:
    """Return the form of a member, with the name where it is an assignment among others."""
    if isinstance(member, sympy.Eq) and member.lhs.is_Symbol:
        return f"{member.lhs.name}={_form(member.rhs)}"
    return _form(member)


def _joined(members: Iterable[Any]) -> str:
    return ",".join(sorted(set(map(_form, members))))


def _relation_form(relation: Any) -> str:
    if isinstance(relation, And) and all(isinstance(part, sympy.Eq) for part in relation.args):
        parts = getattr(relation, "_unsorted_args", relation.args)
        return _equation_form(parts[0].lhs, parts[-1].rhs)
    if isinstance(relation, sympy.Eq):
        return _equation_form(relation.lhs, relation.rhs)
    relation = _replaced(relation)
    if len(relation.free_symbols) == 1:
        return _set_form(_solutions(relation))
    if isinstance(relation, And | Or):
        return f"{type(relation).__name__.lower()}{{{_joined(relation.args)}}}"
    small, large = (
        (relation.lhs, relation.rhs)
        if isinstance(relation, sympy.Lt | sympy.Le | sympy.Ne)
        else (relation.rhs, relation.lhs)
    )
    difference = _prepared(small - large)
    if isinstance(relation, sympy.Ne):
        return f"ne:{ratio_form(difference, is_signed=False)}"
    is_strict = isinstance(relation, sympy.Lt | sympy.Gt)
    return f"{'lt' if is_strict else 'le'}:{ratio_form(difference, is_signed=True)}"


def _equation_form(left: Any, right: Any) -> str:
    """Return the form of an equation: of its value where it gives a name to one."""
    if isinstance(right, sympy.Set | sympy.Tuple | sympy.MatrixBase) or isinstance(
        left, AppliedUndef
    ):
        return _form(right)
    for name, value in ((left, right), (right, left)):
        if name.is_Symbol and not _prepared(value).free_symbols:
            return _form(value)
    return f"eq:{ratio_form(_prepared(left - right), is_signed=False)}"


def _solutions(relation: Any) -> sympy.Set:
    """Return the real solutions of a relation in one variable."""
    if isinstance(relation, And | Or):
        sets = [_solutions(part) for part in relation.args]
        return sympy.Intersection(*sets) if isinstance(relation, And) else sympy.Union(*sets)
    (symbol,) = relation.free_symbols
    real = sympy.Symbol(symbol.name, real=True)
    return relation.xreplace({symbol: real}).as_set()
