"""Rerankers of other projects, run as a program of their own: `clients.py NAME BASE_URL [MODEL]`.

It reads `{"query": …, "documents": […]}` and prints `{"ranking": [[document, score], …]}`, or
`{"error": …}` with the message that the client's user sees. Without a model the client sends its
own default name.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

Ranking = list[tuple[str, float]]
KEY = "any"


def langchain_cohere(url: str, query: str, documents: list[str], **named: str) -> Ranking:
    from langchain_cohere import CohereRerank
    from langchain_core.documents import Document

    ranker = CohereRerank(base_url=url, cohere_api_key=KEY, **named)
    ranked = ranker.compress_documents([Document(text) for text in documents], query)
    return [(found.page_content, found.metadata["relevance_score"]) for found in ranked]


def _haystack(ranker: Any, query: str, documents: list[str]) -> Ranking:
    from haystack import Document

    ranked = ranker.run(query=query, documents=[Document(content=text) for text in documents])
    return [(found.content, found.score) for found in ranked["documents"]]


def haystack_cohere(url: str, query: str, documents: list[str], **named: str) -> Ranking:
    from haystack.utils import Secret
    from haystack_integrations.components.rankers.cohere import CohereRanker

    ranker = CohereRanker(api_base_url=url, api_key=Secret.from_token(KEY), **named)
    return _haystack(ranker, query, documents)


def haystack_tei(url: str, query: str, documents: list[str]) -> Ranking:
    from haystack_integrations.components.rankers.huggingface_api import HuggingFaceTEIRanker

    return _haystack(HuggingFaceTEIRanker(url=url), query, documents)


def _llama_index(ranker: Any, query: str, documents: list[str]) -> Ranking:
    from llama_index.core.schema import NodeWithScore, TextNode

    nodes = [NodeWithScore(node=TextNode(text=text)) for text in documents]
    ranked = ranker.postprocess_nodes(nodes, query_str=query)
    return [(found.node.text, found.score) for found in ranked]


def llama_index_cohere(url: str, query: str, documents: list[str], **named: str) -> Ranking:
    from llama_index.postprocessor.cohere_rerank import CohereRerank

    return _llama_index(CohereRerank(base_url=url, api_key=KEY, **named), query, documents)


def llama_index_jina(url: str, query: str, documents: list[str], **named: str) -> Ranking:
    from llama_index.postprocessor.jinaai_rerank import JinaRerank

    return _llama_index(JinaRerank(base_url=f"{url}/v1", api_key=KEY, **named), query, documents)


def llama_index_tei(url: str, query: str, documents: list[str]) -> Ranking:
    from llama_index.postprocessor.tei_rerank import TextEmbeddingInference

    return _llama_index(TextEmbeddingInference(base_url=url), query, documents)


def llama_index_xinference(url: str, query: str, documents: list[str], **named: str) -> Ranking:
    from llama_index.postprocessor.xinference_rerank import XinferenceRerank

    return _llama_index(XinferenceRerank(base_url=url, **named), query, documents)


def litellm_huggingface(url: str, query: str, documents: list[str], model: str = "any") -> Ranking:
    import litellm

    reply = litellm.rerank(
        model=f"huggingface/{model}", query=query, documents=documents, api_base=url, api_key=KEY
    )
    return [(row["document"]["text"], row["relevance_score"]) for row in reply.results]


def infinity(url: str, query: str, documents: list[str], **named: str) -> Ranking:
    from infinity_client import Client
    from infinity_client.api.default import rerank
    from infinity_client.models import RerankInput

    body = RerankInput(query=query, documents=documents, **named)
    client = Client(base_url=url, raise_on_unexpected_status=True)
    reply = rerank.sync(client=client, body=body)
    return [(documents[row.index], row.relevance_score) for row in reply.results]


CLIENTS: dict[str, Callable[..., Ranking]] = {
    "haystack cohere": haystack_cohere,
    "haystack tei": haystack_tei,
    "infinity": infinity,
    "langchain cohere": langchain_cohere,
    "litellm huggingface": litellm_huggingface,
    "llama-index cohere": llama_index_cohere,
    "llama-index jina": llama_index_jina,
    "llama-index tei": llama_index_tei,
    "llama-index xinference": llama_index_xinference,
}


def show_error(kind: type[BaseException], error: BaseException, _: object) -> None:
    """Print what a client raised as its user sees it."""
    print(json.dumps({"error": f"{kind.__name__}: {error}"}))  # noqa: T201 the program's output


def main() -> None:
    """Rank with one client, and print what it returns or raises."""
    name, url, *models = sys.argv[1:]
    named = {"model": models[0]} if models else {}
    sys.excepthook = show_error
    ranking = CLIENTS[name](url, **json.load(sys.stdin), **named)
    print(json.dumps({"ranking": ranking}))  # noqa: T201 the program's output


if __name__ == "__main__":
    main()
