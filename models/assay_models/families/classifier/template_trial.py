"""A trial of a chat template in a process of its own, which ends whatever the template does.

A template may hold loops without end, or an expression that takes all memory. The process imports
jinja2 alone, and has no environment.
"""

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Any

from jinja2 import Environment, TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

CPU_SECONDS = 5
"""The CPU time of one conversation of two short messages: a thousand times what templates take."""
MEMORY_BYTES = 1 << 30
"""The address space of the process."""

_DEADLINE_SECONDS = 120.0
_OWN_ERRORS = (
    *(TemplateError, ArithmeticError, AttributeError),
    *(LookupError, RecursionError, TypeError, ValueError),
)
_CONVERSATION = ({"role": "user", "content": "one"}, {"role": "assistant", "content": "two"})
_PROGRAM = f"""
import sys
sys.path[:] = sys.argv[1:]
from {__name__} import main
main()
"""


class Generation(Extension):
    """The block tag with which Transformers marks an assistant's tokens; it changes no text."""

    tags = {"generation"}  # noqa: RUF012 as jinja2 declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Return the nodes of the block."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def template_environment(kind: Callable[..., Environment]) -> Environment:
    """Return an environment with the extensions and the white space of Transformers."""
    return kind(
        extensions=["jinja2.ext.loopcontrols", Generation], trim_blocks=True, lstrip_blocks=True
    )


@lru_cache(maxsize=64)
def ends(template: str) -> bool:
    """Return whether a template ends on a short conversation, within five seconds and 1 GiB."""
    paths = [os.path.abspath(path) for path in sys.path]
    try:
        finished = subprocess.run(  # noqa: S603 the template is read from stdin
            [sys.executable, "-I", "-S", "-c", _PROGRAM, *paths],
            input=template.encode(errors="surrogatepass"),
            capture_output=True,
            env={},
            timeout=_DEADLINE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return finished.returncode == 0


def main() -> None:
    """Apply the template on stdin; errors of the template itself are not this trial's matter."""
    for kind, limit in ((resource.RLIMIT_AS, MEMORY_BYTES), (resource.RLIMIT_CPU, CPU_SECONDS)):
        resource.setrlimit(kind, (limit, limit))
    template = sys.stdin.buffer.read().decode(errors="surrogatepass")
    with suppress(*_OWN_ERRORS):
        _apply(template)


def _apply(template: str) -> None:
    environment = template_environment(ImmutableSandboxedEnvironment)
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = str
    for _ in environment.from_string(template).stream(messages=list(_CONVERSATION)):
        pass


def _refuse(message: str) -> Any:
    raise TemplateError(message)
