"""Units of text whose repetition has cost some text tool more time than the text has length."""

UNITS: tuple[str, ...] = (
    # Sentences, and strings that resemble their end.
    *("We saw St. ", "Dr. ", "e.g. ", "a.b.", "...", "!?", ". ", "\u3002", "\u6211\u3002", "A. "),
    *("\u2026", "said that ", "not ", "et al., ", "(Smith et al., 2020) ", "It is. ", "Is it? "),
    # Citations and brackets.
    *("[1]", "[1", "[1, ", "(", "((", ")", "[", "[[", "]", "](", "[a](", "[a](http://b ", "{", "}"),
    *(
        "(Source: ",
        "(see [",
        "http://",
        "https://a.b/c ",
        "www.",
        "<http://",
        "\\cite{",
        "^[1",
        "^",
    ),
    *("\u3010", "\ue200", "<ref", "<ref>", "<sup>", "\u00b9", "\u00b2", "\u2020", "A, ", "Aa and "),
    # Thoughts, tags and tokens of templates.
    *("<think>", "</think>", "<think>\n", "<think>a</think>", "`<think>`", "<think ", "[THINK]"),
    *("<|end|>", "<|channel|>analysis", "<|", "</s>", "<", "&", "<a ", "> ", ">"),
    # Fences, lists, headings and tables.
    *("```", "````", "~~~", "```\n", "```python\n", "```\na\n```\n", "`", "`a", "a ```\n", "~"),
    *("* ", "- ", "+ ", "1. ", "1) ", "(a) ", "# ", "**", "**a", "__", "_", "\n# ", "\n> ", "\n- "),
    *("| a |", "|", "|-", "|-|\n", "|a\n|-\n", "a|b\n-|-\nc|d\n", "\\|", "|:-:"),
    # White space, and characters without a glyph.
    *(
        " ",
        "\t",
        "\n",
        "\r",
        "\r\n",
        "\u00a0",
        "\u3000",
        "\u2028",
        "\x0b",
        " \n",
        "\n ",
        "a ",
        "a\n",
    ),
    *("\u200b", "\u202e", "\u0301", "a\u0301", "\ufeff", "\ufdd0", "\ufe0f", "\x00", "\u00ad"),
    *("\U0001f469\u200d\U0001f469\u200d\U0001f467", "\U0001f1e9", "\U000e0041", "\ufdfa", "\u0130"),
    *(
        "\ud800",
        "\udc00",
        "\ud83d\ude00",
        "\u6587",
        "\u3042",
        "\uac00",
        "\u05d0",
        "\u0e01",
        "\u0416",
    ),
    # Programs.
    *("def f():\n ", "def f(", "class A", "#define x(", "#define a a a\n", "#define a(x) x x\n"),
    *("a(", "a(1)", "\\\n", "\\", 'f"{', '"""', "'''", "import ", "from a import b\n", "@", "@a\n"),
    *("lambda:", "lambda x:", "type A", "type X = 1\n", "class A[T]: pass\n", "/*", "//", "//\n"),
    *(
        "if a:\n",
        "a=",
        "a<b>",
        "-",
        "=",
        "==",
        "->",
        "::",
        "<<",
        "*a",
        "&a ",
        "assert ",
        "assert a(",
    ),
    *(
        "function ",
        "function a(",
        "write `",
        "`a b ",
        "class called ",
        "public ",
        "fn a(",
        "func (a) ",
    ),
    # Quotes, numbers, words.
    *('"', "'", "\u201c", "\u2019", "a'", "n't ", "1", "1,", "1-", "12.5 ", "2020-01-01 ", "1e9"),
    *(
        "a",
        "ab",
        "A",
        "a-",
        "a_",
        "aB",
        "xx ",
        "the cat sat ",
        "I am sorry ",
        "I cannot ",
        "sources: ",
    ),
    *(
        ",",
        ";",
        ":",
        ": ",
        ", ",
        ";;",
        "but ",
        ", but ",
        " so ",
        "while ",
        "$",
        "\\frac{",
        "%",
        "~[1]",
    ),
)
"""Each is repeated up to the wanted length. They are the openings of every pattern in the text
tools, and characters that Unicode treats apart."""


def repeated(unit: str, length: int) -> str:
    """Return the unit, repeated up to at least `length` characters."""
    return unit * -(-length // len(unit))
