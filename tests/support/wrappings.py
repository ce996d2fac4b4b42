"""The wrappings that policies put around a program, and programs to be wrapped."""

import textwrap
from collections.abc import Callable, Mapping

from assay_models.extraction import Language

Wrapping = Callable[[str, str], str]
"""A function of a response and a tag that returns a response with the same program."""

PROGRAMS: Mapping[Language, str] = {
    "python": "def add(a, b):\n    total = a + b\n\n    return total",
    "javascript": "function add(a, b) {\n  const total = a + b;\n\n  return total;\n}",
    "cpp": "#include <ios>\nint add(int a, int b) {\n    int sum = a + b;\n\n    return sum;\n}",
}
TAGS: Mapping[Language, tuple[str, ...]] = {
    "python": ("python", "py", "python3", "Python", "Python 3", "python3.12", "{.python}", ""),
    "javascript": ("javascript", "js", "JavaScript", "node", "js title='a.js'"),
    "cpp": ("cpp", "c++", "C++", "C++17", "cpp20", "GNU C++17"),
}
USES: Mapping[Language, str] = {
    "python": "print(add(1, 2))",
    "javascript": "console.log(add(1, 2));",
    "cpp": "#include <iostream>\nint main() {\n    std::cout << add(1, 2);\n}",
}


def fenced(program: str, tag: str = "", fence: str = "```") -> str:
    return f"{fence}{tag}\n{program}\n{fence}"


def indented(text: str, width: int = 3) -> str:
    return textwrap.indent(text, " " * width)


# Each keeps a fenced program; the tag is that of the fences it adds.
AROUND: Mapping[str, Wrapping] = {
    "prose": lambda text, tag: f"Sure, here it is.\n\n{text}\n\nIt takes linear time.",
    "list": lambda text, tag: f"1. The program:\n\n{indented(text)}\n\n2. That is all.",
    "quote": lambda text, tag: "\n".join(f"> {line}" for line in text.split("\n")),
    "thoughts": lambda text, tag: f"<think>\nMaybe\n{fenced('wrong(', tag)}\n</think>\n\n{text}",
    "thoughts opened by the prompt": lambda text, tag: (
        f"Maybe\n{fenced('wrong(', tag)}\n</think>\n{text}"
    ),
    "thoughts with an open fence": lambda text, tag: (
        f"<thinking>\n```{tag}\nwrong(\n</thinking>\n{text}"
    ),
    "thoughts in tokens": lambda text, tag: f"[THINK]\nMaybe not.\n[/THINK]{text}",
    "answer tags": lambda text, tag: f"<answer>\n{text}\n</answer>",
    "Markdown fence": lambda text, tag: f"```markdown\n{text}\n```",
    "shell block before": lambda text, tag: f"{fenced('pip install numpy', 'bash')}\n\n{text}",
    "shell block behind": lambda text, tag: f"{text}\n\n{fenced('$ make run', 'sh')}",
    "output behind": lambda text, tag: f"{text}\n\nIt prints\n\n{fenced('3', '')}",
    "named output behind": lambda text, tag: f"{text}\n\n{fenced('Result: 3', 'output')}",
}
LINE_ENDS = ("\n", "\r\n", "\r")
# Each makes a response of a bare program.
FENCES: Mapping[str, Wrapping] = {
    "fence": fenced,
    "blanks on the fence lines": lambda text, tag: f"```{tag} \t\n{text}\n```  ",
    "blank before the tag": lambda text, tag: f"``` {tag}\n{text}\n```",
    "tildes": lambda text, tag: fenced(text, tag, "~~~"),
    "four backticks": lambda text, tag: fenced(text, tag, "````"),
    "five tildes": lambda text, tag: fenced(text, tag, "~~~~~"),
    "indented body": lambda text, tag: fenced(indented(text, 4), tag),
    "blank lines": lambda text, tag: fenced(f"\n\n{text}\n\n", tag),
    "list item on the fence line": lambda text, tag: f"- ```{tag}\n{indented(text, 2)}\n  ```",
    "fence closed at the last line": lambda text, tag: f"```{tag}\n{text}```",
    "not closed": lambda text, tag: f"```{tag}\n{text}",
}
