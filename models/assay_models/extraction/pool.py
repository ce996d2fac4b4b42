"""The parsers in worker processes, which die and are replaced."""

from assay_models.extraction.languages import Candidates
from assay_models.extraction.verdict import SyntaxVerdict
from assay_models.extraction.worker import pack_request, unpack_verdict
from assay_models.workers.pool import WORKERS, LimitExceeded, WorkerPool, WorkerUnavailable


class ParserUnavailable(Exception):
    """A text could not be parsed for a reason that is not in the text (see `WorkerUnavailable`)."""


class ParserPool:
    """`syntax.check_syntax` in worker processes, for any number of threads at once."""

    def __init__(self, workers: int = WORKERS) -> None:
        self._workers = WorkerPool("assay_models.extraction.worker", workers)

    def check_syntax(self, code: str, candidates: Candidates) -> SyntaxVerdict:
        """Return what the parsers find in a text (see `syntax.check_syntax`).

        A text on which a worker dies of too much work or of a fault in a parser is beyond the
        parser's limits; of faults other than too much work it must have died twice.

        Raises:
            ParserUnavailable: the text is not at fault.
        """
        if not candidates.languages:
            return SyntaxVerdict("syntax_error")
        try:
            return unpack_verdict(self._workers.ask(pack_request(code, candidates)))
        except LimitExceeded:
            return SyntaxVerdict("parser_limit", candidates.declared)
        except WorkerUnavailable as error:
            raise ParserUnavailable(str(error)) from error

    def close(self) -> None:
        """Stop the workers. Texts that come later start new ones."""
        self._workers.close()
