"""The program of the processes that parse: untrusted texts in, verdicts out."""

import json
from collections.abc import Mapping
from typing import get_args

from assay_models.extraction.languages import LANGUAGES, Candidates, Language, SyntaxRule
from assay_models.extraction.syntax import check_syntax
from assay_models.extraction.verdict import Reason, SyntaxVerdict
from assay_models.workers.process import serve

CPU_SECONDS = 2.0
"""The CPU time for one text: five times what Python's parser takes for the worst one known
(docs/LOG.md)."""

MEMORY_BYTES = 512 << 20
"""The address space of the process."""

_LANGUAGES: Mapping[str, Language] = {name: name for name in LANGUAGES}
_RULES: Mapping[str, SyntaxRule] = {name: name for name in get_args(SyntaxRule)}
_REASONS: Mapping[str, Reason] = {name: name for name in get_args(Reason)}


def main() -> None:
    """Answer the requests on file descriptor 0 until it is closed."""
    serve(_answer, cpu_seconds=CPU_SECONDS, memory_bytes=MEMORY_BYTES)


def pack_request(code: str, candidates: Candidates) -> bytes:
    """Encode a request: the index of the first guess, the rule, the languages, a newline, the
    text."""
    head = ",".join((str(candidates.first_guess), candidates.rule, *candidates.languages))
    return f"{head}\n".encode() + code.encode(errors="surrogatepass")


def unpack_verdict(answer: bytes) -> SyntaxVerdict:
    """Decode the verdict in an answer."""
    reason, language, defines, is_newer = json.loads(answer)
    return SyntaxVerdict(_REASONS[reason], _LANGUAGES.get(language), tuple(defines), is_newer)


def _answer(request: bytes) -> bytes:
    head, _, text = request.partition(b"\n")
    first_guess, rule, *languages = head.decode().split(",")
    candidates = Candidates(
        tuple(_LANGUAGES[name] for name in languages), int(first_guess), _RULES[rule]
    )
    try:
        code = text.decode(errors="surrogatepass")
        verdict = check_syntax(code, candidates)
    except MemoryError:
        verdict = SyntaxVerdict("parser_limit")
    return json.dumps(
        (verdict.reason, verdict.language, verdict.defines, verdict.is_newer)
    ).encode()
