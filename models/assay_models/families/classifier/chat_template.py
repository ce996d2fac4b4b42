"""Chat templates that make the same text of a conversation at any time, or are refused."""

import json
from collections.abc import Iterator
from datetime import date, datetime, time
from typing import Any

from jinja2 import Environment, TemplateError, TemplateSyntaxError, nodes

from assay_models.families.classifier.load_errors import CheckpointFault
from assay_models.families.classifier.template_trial import (
    CPU_SECONDS,
    MEMORY_BYTES,
    ends,
    template_environment,
)

CLOCK = "strftime_now"
"""The function of Transformers' templates that writes the present time in a given format."""

_RANDOM_FILTER, _RANDOM_TEXT = "random", "lipsum"


def fixed_template(template: str, at: date | None) -> str:
    """Return a template whose text depends on the conversation alone.

    Args:
        template: a template as Transformers renders it (`apply_chat_template`).
        at: the date that its calls of `strftime_now` shall write, at midnight. It becomes part of
            the template.

    Raises:
        CheckpointFault: the template has a syntax error, does not end, draws at random, or asks for
            the time and no date is given, or the other way round.
    """
    tree = _parsed(template)
    _refuse_chance(tree)
    formats = sorted(_clock_formats(tree))
    if not formats:
        if at is not None:
            raise CheckpointFault(f"options.date has no effect: the template never calls {CLOCK}")
        return template
    if at is None:
        raise CheckpointFault(
            f"it writes the present date ({CLOCK}), so that scores would change from day to day: "
            'fix it with options.date (as "2024-07-26"), or give another options.chat_template'
        )
    midnight = datetime.combine(at, time())
    texts = {pattern: midnight.strftime(pattern) for pattern in formats}
    # The newline is dropped, as behind any block tag, and the rest starts a line as before.
    macro = f"{{%- macro {CLOCK}(format) -%}}{{{{ {json.dumps(texts)}[format] }}}}{{%- endmacro %}}"
    return f"{macro}\n{template}"


def own_template(tokenizer: Any) -> str | None:
    """Return the chat template in a tokenizer's files; None if there is none.

    Raises:
        CheckpointFault: there are several and no default, or it is no text.
    """
    if not tokenizer.chat_template:
        return None
    try:
        template = tokenizer.get_chat_template()
    except ValueError:
        raise CheckpointFault(
            "there are several and no default: name one in options.chat_template"
        ) from None
    if not isinstance(template, str):
        raise CheckpointFault("chat_template in tokenizer_config.json is no text")
    return template


def _parsed(template: str) -> nodes.Template:
    if template and not ends(template):
        raise CheckpointFault(
            f"two short messages take it more than {CPU_SECONDS} s of CPU time or "
            f"{MEMORY_BYTES >> 20} MiB: give another options.chat_template"
        )
    environment = template_environment(Environment)
    try:
        tree = environment.parse(template)
        environment.compile(tree)
    except TemplateSyntaxError as error:
        raise CheckpointFault(f"line {error.lineno}: {error.message}") from error
    except TemplateError as error:
        raise CheckpointFault(str(error)) from error
    return tree


def _refuse_chance(tree: nodes.Template) -> None:
    filters = {node.name for node in tree.find_all(nodes.Filter)}
    # `map("random")` names the filter in a string.
    strings = {
        argument.value
        for node in tree.find_all(nodes.Filter)
        for argument in node.args
        if isinstance(argument, nodes.Const)
    }
    names = {node.name for node in tree.find_all(nodes.Name)}
    if _RANDOM_FILTER in filters | strings or _RANDOM_TEXT in names:
        used = _RANDOM_TEXT if _RANDOM_TEXT in names else _RANDOM_FILTER
        raise CheckpointFault(
            f"it draws at random ({used!r}), so that an item would have no score of its own: "
            "give another options.chat_template"
        )


def _clock_formats(tree: nodes.Template) -> set[str]:
    names = [node for node in tree.find_all(nodes.Name) if node.name == CLOCK]
    calls = list(_clock_calls(tree))
    tests = [node.node for node in tree.find_all(nodes.Test) if node.name == "defined"]
    known = [*(name for name, _ in calls), *tests]
    # By identity, because nodes of the same content are equal.
    if any(all(name is not other for other in known) for name in names):
        raise CheckpointFault(f"it uses {CLOCK} other than in calls: write out each call")
    formats = set()
    for _, argument in calls:
        if not isinstance(argument, nodes.Const) or not isinstance(argument.value, str):
            raise CheckpointFault(f"it calls {CLOCK} with a format that is not written out in it")
        formats.add(argument.value)
    return formats


def _clock_calls(tree: nodes.Template) -> Iterator[tuple[nodes.Expr, Any]]:
    for call in tree.find_all(nodes.Call):
        if isinstance(call.node, nodes.Name) and call.node.name == CLOCK:
            yield call.node, (*call.args, *(word.value for word in call.kwargs), None)[0]
