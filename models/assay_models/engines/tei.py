"""Text Embeddings Inference: `POST /predict` with texts."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from assay_models.base import ItemError, Raw
from assay_models.engines.endpoints import Endpoint
from assay_models.engines.errors import bad_reply
from assay_models.engines.http import Reply
from assay_models.engines.identity import EngineIdentity
from assay_models.engines.protocol import DEFAULT_FIELDS, ProtocolEngine, Text, text_size
from assay_models.engines.replies import (
    name_at,
    number,
    objects,
    parse_list,
    text_at,
    whole_at,
)
from assay_models.engines.transport import ALONE, Call


class TeiEngine(ProtocolEngine):
    """Text Embeddings Inference with a sequence classifier.

    It takes no token ids. It sorts the labels of an input by score; here they are put back into the
    order of `id2label` by their names. Its entries have no index: only their position says to which
    text they belong. The header `x-compute-characters`, where it is there, must count the
    characters that were sent.
    """

    takes = "texts"
    can_activate = True
    _labels: tuple[str, ...] | None = None

    async def classify_texts(
        self,
        texts: Sequence[Text],
        *,
        activation: bool | None = False,
        fields: tuple[str, str] = DEFAULT_FIELDS,
        whole: bool = False,
    ) -> list[Raw | ItemError]:
        """See `Engine.classify_texts`. `fields` has no meaning here."""
        if self._labels is None:
            await self.identity()
        return await self._compute(
            texts, lambda part: self._call(part, activation), size=text_size, whole=whole
        )

    async def identity(self) -> EngineIdentity:
        """See `Engine.identity`."""
        identity = await super().identity()
        self._labels = identity.labels
        return identity

    async def _call(
        self, texts: Sequence[Text], activation: bool | None
    ) -> Sequence[Raw | ItemError]:
        inputs = [[text] if isinstance(text, str) else list(text) for text in texts]
        body: dict[str, Any] = {"inputs": inputs, "truncate": False}
        if activation is not None:
            body["raw_scores"] = not activation
        tokens = sum(map(text_size, texts))
        call = Call("/predict", orjson.dumps(body), len(texts), tokens, headers=ALONE)
        characters = sum(len(part) for parts in inputs for part in parts)
        labels = self._labels or ()
        return await self._transport.call(
            call,
            lambda reply: self._check_width(_read(reply, len(texts), characters, labels)),
        )

    async def _identify(self, endpoint: Endpoint) -> EngineIdentity:
        info = await self._get(endpoint, "/info")
        model = name_at(info, "model_id")
        if model is None:
            raise bad_reply("its description names no model")
        return EngineIdentity(
            model=model,
            revision=name_at(info, "model_sha") or "",
            version=name_at(info, "version") or "",
            dtype=name_at(info, "model_dtype"),
            max_tokens=whole_at(info, "max_input_length"),
            labels=_labels(info.get("model_type")),
        )


def _labels(kind: object) -> tuple[str, ...]:
    """Return the names of the labels by position.

    Raises:
        EngineError: the model is no classifier, or its labels are not numbered from 0.
    """
    kinds = kind if isinstance(kind, dict) else {}
    classifier = kinds.get("classifier") or kinds.get("reranker")
    names = classifier.get("id2label") if isinstance(classifier, dict) else None
    if not isinstance(names, Mapping) or not names:
        raise bad_reply("its model is no classifier, or has no labels")
    labels = tuple(names.get(str(position)) for position in range(len(names)))
    if not all(isinstance(label, str) for label in labels) or len({*labels}) < len(labels):
        raise bad_reply("its labels are not numbered from 0, or two have one name")
    return labels  # type: ignore[return-value]


def _read(reply: Reply, rows: int, characters: int, labels: Sequence[str]) -> list[Raw]:
    """Return the raws of a reply.

    Raises:
        EngineError: they are in doubt.
    """
    counted = reply.headers.get("x-compute-characters")
    if counted is not None and counted != str(characters):
        raise bad_reply(f"it counts other characters than the {characters} that were sent")
    entries = parse_list(reply)
    if len(entries) != rows:
        raise bad_reply(f"it does not have one entry for each of {rows} inputs")
    return [_in_order(objects(entry, len(labels)), labels) for entry in entries]


def _in_order(entry: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> Raw:
    scores = {text_at(part, "label"): part.get("score") for part in entry}
    if scores.keys() != set(labels):
        raise bad_reply("its labels are not those of the model")
    return tuple(number(scores[label]) for label in labels)
