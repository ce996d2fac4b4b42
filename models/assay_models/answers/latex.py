"""Mathematics in plain text, rewritten as LaTeX."""

import re

_FUNCTIONS = "arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|log|ln|exp|max|min|gcd"
_NAMES = (
    (re.compile(r"(?<![\\A-Za-z])(?:infinity|infty|inf|oo)(?![A-Za-z])"), r"\\infty "),
    (re.compile(r"(?<![\\A-Za-z])pi(?![A-Za-z])"), r"\\pi "),
    (re.compile(r"(?<![\\A-Za-z])theta(?![A-Za-z])"), r"\\theta "),
    (re.compile(rf"(?<![\\A-Za-z])({_FUNCTIONS})(?![A-Za-z])"), r"\\\1 "),
    (re.compile(r"\\log_\s*(?:\{\s*e\s*\}|e)(?![A-Za-z])"), r"\\ln "),
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"\*"), r" \\cdot "),
    (re.compile(r"<=|=<"), r" \\le "),
    (re.compile(r">="), r" \\ge "),
    (re.compile(r"!="), r" \\ne "),
    (re.compile(r"\\text\s*\{\s*and\s*\}|(?<![A-Za-z\\{])and(?![A-Za-z}])"), r" \\land "),
    (re.compile(r"\\text\s*\{\s*or\s*\}|(?<![A-Za-z\\{])or(?![A-Za-z}])|\\lor(?![A-Za-z])"), ","),
    (re.compile(r"\\wedge(?![A-Za-z])"), r"\\land "),
    (re.compile(r",\s*\\land "), r" \\land "),
    (re.compile(r"(?<![A-Za-z\\])in(?=\s*[\[(\\{])"), r" \\in "),
    (re.compile(r"(?<=[\])])\s*U\s*(?=[\[(])"), r" \\cup "),
    (re.compile(r",(?:\s*,)+"), ","),
    (
        re.compile(r"\\frac\s*(\\[A-Za-z]+|[A-Za-z0-9])\s*(\\[A-Za-z]+|[A-Za-z0-9])"),
        r"\\frac{\1}{\2}",
    ),
    (re.compile(r"\\(?:mathrm|text|rm)\s*\{\s*([ei])\s*\}"), r" \1 "),
    (re.compile(r"\\lt(?![A-Za-z])"), "<"),
    (re.compile(r"\\gt(?![A-Za-z])"), ">"),
    (re.compile(r"\\langle"), "("),
    (re.compile(r"\\rangle"), ")"),
    (re.compile(r"\\dots|\\ldots|\\cdots"), "..."),
    (re.compile(r"\\lbrace|\\\{"), r"\\{"),
    (re.compile(r"\\rbrace|\\\}"), r"\\}"),
    (re.compile(r"\\(?:leq|leqslant)(?![A-Za-z])"), r"\\le "),
    (re.compile(r"\\(?:geq|geqslant)(?![A-Za-z])"), r"\\ge "),
    (re.compile(r"\{(?:bmatrix|matrix|smallmatrix)\}"), "{pmatrix}"),
    (re.compile(r"[\[(]\s*\\begin\{array\}\{[^{}]*\}"), r"\\begin{pmatrix}"),
    (re.compile(r"\\end\{array\}\s*[\])]"), r"\\end{pmatrix}"),
)
_TRIGONOMETRY = re.compile(r"(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
_DEGREES = re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z]))|\\degree(?![A-Za-z])|°")
_CALL = re.compile(r"(?<![\\A-Za-z])sqrt\s*\(|\\sqrt\s*\(|\^\s*\(|[()]")
_PLAIN_SET = re.compile(r"(?<![\\A-Za-z}\]])\{([^{}]*,[^{}]*)\}")


_CONDITION = re.compile(
    r"\\\{\s*[a-z](?:\s*\\in\s*\\mathbb\{R\})?\s*(?:\\mid|\\vert|\||:)\s*([^|:]+)\\\}"
)


def as_latex(text: str) -> str:
    """Return a cleaned text with its plain names, operators, roots and powers as LaTeX's.

    A set that a condition describes, `{x | x > 2}`, is the condition.
    """
    if "\\" not in text:
        text = _PLAIN_SET.sub(r"\\{\1\\}", text)
    degrees = r" \\cdot \\frac{\\pi}{180} " if _TRIGONOMETRY.search(text) else " "
    text = _DEGREES.sub(degrees, text)
    for pattern, replacement in _NAMES:
        text = pattern.sub(replacement, text)
    return _CONDITION.sub(r"\1", _braced_calls(text)).strip()


def _braced_calls(text: str) -> str:
    r"""Return a text with `sqrt(x)` as `\\sqrt{x}` and `^(x)` as `^{x}`."""
    parts, opened, start = list[str](), list[int | None](), 0
    for match in _CALL.finditer(text):
        parts.append(text[start : match.start()])
        start = match.end()
        if match[0] == ")":
            call = opened.pop() if opened else None
            if call is not None:
                parts[call] = "^{" if parts[call].startswith("^") else r"\sqrt{"
            parts.append(")" if call is None else "}")
        else:
            opened.append(None if match[0] == "(" else len(parts))
            parts.append(match[0])
    return "".join([*parts, text[start:]])
