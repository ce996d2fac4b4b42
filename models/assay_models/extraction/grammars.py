"""Parsing with tree-sitter grammars: imported on first use, trees walked without recursion."""

import functools
import importlib
import re
import time
from collections.abc import Iterator
from typing import Any

from assay_models.extraction import macros
from assay_models.extraction.languages import GRAMMARS, Language, SyntaxRule
from assay_models.extraction.verdict import MAX_DEPTH, Reason, SyntaxVerdict

_OPENING, _BRACKETS = re.compile(r"[(\[{]"), re.compile(r"([(\[{])|[)\]}]")

# The names of nodes, over all grammars: those that do nothing, constants, and those that are a
# definition if they have a body.
# fmt: off
_IDLE = frozenset(
    {
        "access_specifier", "block_comment", "comment", "empty_statement", "hash_bang_line",
        "import_declaration", "import_statement", "line_comment", "package_clause",
        "package_declaration", "preproc_include", "use_declaration", "using_declaration",
    }
)
_CONSTANTS = frozenset(
    {
        "boolean_literal", "char_literal", "character_literal", "concatenated_string",
        "decimal_floating_point_literal", "decimal_integer_literal", "false", "float_literal",
        "int_literal", "integer_literal", "interpreted_string_literal", "null", "null_literal",
        "number", "number_literal", "raw_string_literal", "string", "string_literal", "true",
        "undefined",
    }
)
_DEFINITIONS = frozenset(
    {
        "abstract_class_declaration", "class_declaration", "class_specifier",
        "constructor_declaration", "enum_declaration", "enum_item", "enum_specifier",
        "function_declaration", "function_definition", "function_item",
        "generator_function_declaration", "impl_item", "interface_declaration", "internal_module",
        "linkage_specification", "method_declaration", "method_definition", "mod_item",
        "namespace_definition", "record_declaration", "struct_item", "struct_specifier",
        "trait_item", "union_specifier",
    }
)
# fmt: on
_WRAPPERS = frozenset({"export_statement", "expression_statement", "template_declaration"})
_CALLABLES = frozenset({"arrow_function", "function_expression", "func_literal"})
_BLOCKS = frozenset({"block", "statement_block"})


def check_syntax(
    code: str, language: Language, rule: SyntaxRule, *, is_guess: bool, deadline: float
) -> SyntaxVerdict:
    """Return whether `code` parses under one of the language's tables.

    There must be no error and no missing token. As a guess it must also define something with a
    body. By the language's rule the macros of a C or C++ program are expanded where it does not
    parse as it is. `deadline` is the `time.thread_time()` at which the parser gives up. The parser
    reads the clock between steps, and there are texts on which one step takes minutes.
    """
    if nests_too_deep(code):
        return SyntaxVerdict("parser_limit")
    verdict = _check_tables(code, language, rule, is_guess, deadline)
    if verdict.reason == "syntax_error" and rule == "language" and language in ("c", "cpp"):
        expanded = macros.expand(code)
        if expanded is not None and not nests_too_deep(expanded):
            return _check_tables(expanded, language, rule, is_guess, deadline)
    return verdict


def _check_tables(
    code: str, language: Language, rule: SyntaxRule, is_guess: bool, deadline: float
) -> SyntaxVerdict:
    try:
        data = code.encode() + b"\n"  # as in a file: C's directives do not end without it
    except UnicodeEncodeError:
        return SyntaxVerdict("syntax_error")
    for table in tables(language):
        reason, root = _parse(data, table, deadline)
        if root is not None and is_guess and not any(map(_defines, _nodes(root))):
            reason, root = "syntax_error", None
        if root is not None and rule == "language":
            return SyntaxVerdict(reason, None, tuple(dict.fromkeys(_defined_names(root, data))))
        if reason != "syntax_error":
            break
    return SyntaxVerdict(reason)


@functools.cache
def tables(language: Language) -> tuple[Any, ...]:
    """Return the `tree_sitter.Language` of each table of a language, imported on first use."""
    core = importlib.import_module("tree_sitter")
    grammar = GRAMMARS[language]
    module = importlib.import_module(grammar.module)
    return tuple(core.Language(getattr(module, table)()) for table in grammar.tables)


def nests_too_deep(code: str) -> bool:
    """Return whether brackets nest deeper than a syntax tree may."""
    # Brackets in strings and comments count: a crude bound, before a parser whose time grows with
    # the square of the depth.
    if len(_OPENING.findall(code)) <= MAX_DEPTH:
        return False
    depth = deepest = 0
    for bracket in _BRACKETS.finditer(code):
        depth = depth + 1 if bracket[1] else max(0, depth - 1)
        deepest = max(deepest, depth)
    return deepest > MAX_DEPTH


def _parse(data: bytes, table: Any, deadline: float) -> tuple[Reason, Any]:
    """Return the reason, and the root of the tree where there is a program."""
    is_late = has_failed = False

    def is_over(_: int, has_error: bool) -> bool:
        nonlocal is_late, has_failed
        has_failed |= has_error
        is_late = time.thread_time() > deadline
        return has_failed or is_late

    def read(offset: int, _: object) -> memoryview:
        return memoryview(data)[offset:]

    parser = importlib.import_module("tree_sitter").Parser(table)
    try:
        root = parser.parse(read, progress_callback=is_over).root_node
    except ValueError:
        if has_failed or is_late:
            return "syntax_error" if has_failed else "parser_limit", None
        raise
    if root.has_error:
        return "syntax_error", None
    if _is_too_deep(root):
        return "parser_limit", None
    return "trivial" if _does_nothing(root) else "ok", root


def _is_too_deep(root: Any) -> bool:
    cursor = root.walk()
    depth = 1
    while depth <= MAX_DEPTH:
        if cursor.goto_first_child():
            depth += 1
            continue
        while not cursor.goto_next_sibling():
            if not cursor.goto_parent():
                return False
            depth -= 1
    return True


def _nodes(root: Any) -> Iterator[Any]:
    pending = [root]
    while pending:
        node = pending.pop()
        yield node
        pending += node.named_children


def _defines(node: Any) -> bool:
    if node.type in _DEFINITIONS:
        return node.child_by_field_name("body") is not None
    body = node.child_by_field_name("body") if node.type in _CALLABLES else None
    return body is not None and body.type in _BLOCKS


def _defined_names(root: Any, data: bytes) -> Iterator[str]:
    """Yield the names of all functions, classes and methods that have a body."""
    for node in filter(_defines, _nodes(root)):
        name = _declared(node.parent if node.type in _CALLABLES else node)
        while name is not None and (inner := _declared(name)) is not None:
            name = inner
        if name is not None:  # its `text` cannot be read: the parser did not keep the source
            yield data[name.start_byte : name.end_byte].decode()


def _declared(node: Any) -> Any:
    """Return the declarator or the name inside a C declarator or a qualified name."""
    return node.child_by_field_name("declarator") or node.child_by_field_name("name")


def _does_nothing(root: Any) -> bool:
    pending = list(root.named_children)
    while pending:
        node = pending.pop()
        if node.type in _IDLE or node.type in _CONSTANTS:
            continue
        inner = _inner(node)
        if inner is None:
            return False
        pending += inner
    return True


def _inner(node: Any) -> list[Any] | None:
    if node.type in _WRAPPERS:
        return [child for child in node.named_children if child.type != "template_parameter_list"]
    body = node.child_by_field_name("body") if node.type in _DEFINITIONS else None
    return None if body is None else list(body.named_children)
