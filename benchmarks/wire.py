"""The request format of each system, and the place of the scores in its reply."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from benchmarks.texts import Text


class BadReply(Exception):
    """A reply without the requested scores."""


@dataclass(frozen=True, slots=True)
class WireFormat:
    """A request format: the route, the body for some texts, and the scores in a reply's JSON."""

    path: str
    body: Callable[[str, Sequence[Text]], Mapping[str, Any]]
    scores: Callable[[Any], list[float]]

    def request(self, model: str, texts: Sequence[Text], host: str, port: int) -> bytes:
        """Return a complete HTTP request: head and body."""
        return http_request(self.path, orjson.dumps(self.body(model, texts)), host, port)

    def read(self, reply: bytes, count: int) -> list[float]:
        """Return the scores in a reply.

        Raises:
            BadReply: it does not hold `count` numbers where they belong.
        """
        try:
            scores = [float(score) for score in self.scores(orjson.loads(reply))]
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise BadReply(f"{type(error).__name__} in the reply") from error
        if len(scores) != count:
            raise BadReply(f"{len(scores)} scores for {count} items")
        return scores


def http_request(path: str, body: bytes, host: str, port: int) -> bytes:
    """Return a POST with a JSON body and minimal headers."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _assay_body(model: str, texts: Sequence[Text]) -> Mapping[str, Any]:
    items = [{"prompt": text.prompt, "response": text.response} for text in texts]
    return {"model": model, "items": items}


def _pairs_body(_: str, texts: Sequence[Text]) -> Mapping[str, Any]:
    return {
        "prompts": [text.prompt for text in texts],
        "responses": [text.response for text in texts],
    }


def _trainer_body(_: str, texts: Sequence[Text]) -> Mapping[str, Any]:
    return {"query": [text.response for text in texts], "prompts": [text.prompt for text in texts]}


def _rerank_body(model: str, texts: Sequence[Text]) -> Mapping[str, Any]:
    (prompt,) = {text.prompt for text in texts}
    documents = [text.response for text in texts]
    return {"model": model, "query": prompt, "documents": documents, "raw_scores": True}


def _score_body(model: str, texts: Sequence[Text]) -> Mapping[str, Any]:
    return {
        "model": model,
        "text_1": [text.prompt for text in texts],
        "text_2": [text.response for text in texts],
        "use_activation": False,
    }


def _classify_body(model: str, texts: Sequence[Text]) -> Mapping[str, Any]:
    whole = [text.whole for text in texts]
    return {"model": model, "input": whole, "use_activation": False}


def _rows_by_index(field: str, score: Callable[[Any], float]) -> Callable[[Any], list[float]]:
    def scores(reply: Any) -> list[float]:
        rows = sorted(reply[field], key=lambda row: int(row["index"]))
        return [score(row) for row in rows]

    return scores


def _list_in(field: str) -> Callable[[Any], list[float]]:
    return lambda reply: list(reply[field])


WIRES: Mapping[str, WireFormat] = {
    "assay": WireFormat(
        "/v1/score", _assay_body, _rows_by_index("results", lambda row: row["score"])
    ),
    "trainer": WireFormat("/get_reward", _trainer_body, _list_in("rewards")),
    "predict": WireFormat("/predict", _pairs_body, _list_in("scores")),
    "inference": WireFormat("/inference", _pairs_body, _list_in("scores")),
    "infinity": WireFormat(
        "/rerank", _rerank_body, _rows_by_index("results", lambda row: row["relevance_score"])
    ),
    "vllm-score": WireFormat(
        "/score", _score_body, _rows_by_index("data", lambda row: row["score"])
    ),
    "vllm-classify": WireFormat(
        "/classify", _classify_body, _rows_by_index("data", lambda row: row["probs"][0])
    ),
}
