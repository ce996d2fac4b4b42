"""How each system is asked for scores, and where its reply holds them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from benchmarks.texts import Text


class BadReply(Exception):
    """A reply without the scores that were asked for."""


@dataclass(frozen=True, slots=True)
class Wire:
    """One request format: the route, the body for some texts, and the scores in a reply's JSON."""

    path: str
    body: Callable[[str, Sequence[Text]], Mapping[str, Any]]
    scores: Callable[[Any], list[float]]

    def request(self, model: str, texts: Sequence[Text], host: str, port: int) -> bytes:
        """A whole HTTP request: head and body."""
        return http_request(self.path, orjson.dumps(self.body(model, texts)), host, port)

    def read(self, reply: bytes, count: int) -> list[float]:
        """The scores in a reply.

        Raises:
            BadReply: it does not hold `count` numbers where they belong.
        """
        try:
            found = [float(score) for score in self.scores(orjson.loads(reply))]
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise BadReply(f"{type(error).__name__} in the reply") from error
        if len(found) != count:
            raise BadReply(f"{len(found)} scores for {count} items")
        return found


def http_request(path: str, body: bytes, host: str, port: int) -> bytes:
    """A POST with a JSON body, as a lean client sends it."""
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


def _in_order(field: str, score: Callable[[Any], float]) -> Callable[[Any], list[float]]:
    def scores(reply: Any) -> list[float]:
        rows = sorted(reply[field], key=lambda row: int(row["index"]))
        return [score(row) for row in rows]

    return scores


def _named(name: str) -> Callable[[Any], list[float]]:
    return lambda reply: list(reply[name])


WIRES: Mapping[str, Wire] = {
    "assay": Wire("/v1/score", _assay_body, _in_order("results", lambda row: row["score"])),
    "trainer": Wire("/get_reward", _trainer_body, _named("rewards")),
    "predict": Wire("/predict", _pairs_body, _named("scores")),
    "inference": Wire("/inference", _pairs_body, _named("scores")),
    "infinity": Wire(
        "/rerank", _rerank_body, _in_order("results", lambda row: row["relevance_score"])
    ),
    "vllm-score": Wire("/score", _score_body, _in_order("data", lambda row: row["score"])),
    "vllm-classify": Wire(
        "/classify", _classify_body, _in_order("data", lambda row: row["probs"][0])
    ),
}
