"""Parsing of replies from JSON, with every number and every place checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from assay_client._transport.fields import Fields, read_json
from assay_client._transport.zip import zip_strict
from assay_client.errors import Problem
from assay_client.types import (
    BestOfN,
    Group,
    ItemError,
    Model,
    RankedCandidate,
    Result,
    ScoreReply,
    Timing,
    Usage,
)

Items = Sequence[object]


def read_score(body: bytes, model: str, items: Items) -> ScoreReply:
    """Parse the reply to the request that named this model and held these items.

    Raises:
        ProtocolError: it is not the reply to them.
    """
    reply = Fields(read_json(body), "reply")
    return ScoreReply(
        id=reply.text("id"),
        model=_scored_by(reply, model),
        fingerprint=reply.text("fingerprint"),
        results=_results(reply, items),
        groups=tuple(map(_group, reply.objects("groups"))) if "groups" in reply else (),
        usage=_usage(reply.object("usage")),
        timing=_timing(reply.object("timing")),
    )


def read_best_of_n(body: bytes, model: str, candidates: Items, *, complete: bool) -> BestOfN:
    """Parse the reply to the request that held these candidates.

    Args:
        body: the reply.
        model: as the request named it.
        candidates: as they were sent.
        complete: whether every candidate must be in the ranking.

    Raises:
        ProtocolError: it is not the reply to them.
    """
    reply = Fields(read_json(body), "reply")
    results = _results(reply, candidates)
    ranking = tuple(map(_ranked, reply.objects("ranking")))
    best = reply.integer("best") if "best" in reply else None
    ties = tuple(_tie(reply, tie) for tie in reply.list("ties"))
    _check_ranking(reply, ranking, results, complete)
    _check_best(reply, best, results)
    return BestOfN(
        model=_scored_by(reply, model),
        fingerprint=reply.text("fingerprint"),
        best=best,
        ranking=ranking,
        ties=ties,
        abstained=reply.boolean("abstained"),
        results=results,
    )


def read_models(body: bytes) -> list[Model]:
    """Parse the reply to `GET /v1/models`."""
    reply = Fields(read_json(body), "reply")
    return [_model(model) for model in reply.objects("models")]


def read_model(body: bytes) -> Model:
    """Parse the reply to `GET /v1/models/{model}`."""
    return _model(Fields(read_json(body), "reply"))


def read_problem(
    parsed: Any, retry_after: float | None
) -> tuple[Problem, Mapping[str, Any] | None]:
    """Read the problem of an error reply. A proxy's error page has no details.

    Args:
        parsed: the reply's JSON, or None if it is not JSON.
        retry_after: seconds from its header.

    Returns:
        The problem, and the JSON object that it was read from, or None.
    """
    body: Mapping[str, Any] | None = parsed if isinstance(parsed, dict) else None
    if body is not None and isinstance(body.get("error"), dict) and "detail" not in body:
        body = body["error"]  # endpoints of chat completions wrap it so
    fields = body or {}
    retryable = fields.get("retryable")
    errors = fields.get("errors")
    texts = (_text(fields, name) for name in _DETAIL_FIELDS)
    problem = Problem(
        code=_text(fields, "code") or "unknown",
        detail=next(filter(None, texts), _NO_DETAIL),
        hint=_text(fields, "hint"),
        retryable=retryable if isinstance(retryable, bool) else None,
        retry_after=retry_after,
        errors=tuple(entry for entry in errors if isinstance(entry, dict))
        if isinstance(errors, list)
        else (),
    )
    return problem, body


_DETAIL_FIELDS = ("detail", "title", "message")
_NO_DETAIL = "the reply gives no reason"


def _text(fields: Mapping[str, Any], name: str) -> str | None:
    value = fields.get(name)
    return value if isinstance(value, str) and value else None


def _scored_by(reply: Fields, model: str) -> str:
    """Return the model of the reply: the one asked for, or a version of it."""
    name = reply.text("model")
    if model not in (name, name.partition("@")[0]):
        reply.fail(f"has scores of {name[:64]!r}, not of {model!r}")
    return name


def _results(reply: Fields, items: Items) -> tuple[Result, ...]:
    results = [_result(fields) for fields in reply.objects("results")]
    if len(results) != len(items):
        reply.fail(f"has {len(results)} results for {len(items)} items")
    for place, (result, item) in enumerate(zip_strict(results, items)):
        if result.index != place:
            reply.fail(f"has the result of item {result.index} in place {place}")
        sent = item.get("id") if isinstance(item, Mapping) else None
        if sent is not None and result.id != sent:
            reply.fail(f"has another item's id in place {place}")
    return tuple(results)


def _result(fields: Fields) -> Result:
    status = _status(fields)
    ok = status == "ok"
    flags = fields.texts("flags") if ok or "flags" in fields else ()
    return Result(
        index=fields.integer("index"),
        id=fields.text("id") if "id" in fields else None,
        group=fields.text("group") if "group" in fields else None,
        status=status,
        score=_score(fields, ok=ok, substituted="substituted" in flags),
        raw=fields.number_or_none("raw") if ok else None,
        channels=fields.numbers("channels") if ok or "channels" in fields else {},
        flags=flags,
        tokens=fields.integer("tokens") if ok or "tokens" in fields else None,
        source=fields.text("source") if ok or "source" in fields else None,
        details=fields.object("details").all if "details" in fields else {},
        error=None if ok else _item_error(fields.object("error")),
    )


def _status(fields: Fields) -> Literal["ok", "error"]:
    status = fields.text("status")
    if status not in ("ok", "error"):
        fields.fail("has a status that is neither ok nor error")
    return "ok" if status == "ok" else "error"


def _score(fields: Fields, *, ok: bool, substituted: bool) -> float | None:
    if ok or substituted:
        return fields.number("score")
    if fields.number_or_none("score") is not None:
        fields.fail("has a score although it could not be scored")
    return None


def _item_error(fields: Fields) -> ItemError:
    return ItemError(code=fields.text("code"), detail=fields.text("detail"))


def _group(fields: Fields) -> Group:
    return Group(
        group=fields.text("group"),
        n=fields.integer("n"),
        scored=fields.integer("scored"),
        mean=fields.number_or_none("mean"),
        std=fields.number_or_none("std"),
        ranks=fields.ranks("ranks"),
        zero_variance=fields.boolean("zero_variance"),
    )


def _usage(fields: Fields) -> Usage:
    return Usage(
        items=fields.integer("items"),
        tokens=fields.integer("tokens"),
        computed=fields.integer("computed"),
        cached=fields.integer("cached"),
        shared=fields.integer("shared"),
        rule=fields.integer("rule") if "rule" in fields else 0,
        failed=fields.integer("failed") if "failed" in fields else 0,
    )


def _timing(fields: Fields) -> Timing:
    return Timing(
        prepare_ms=fields.number("prepare_ms"),
        queue_ms=fields.number("queue_ms"),
        predict_ms=fields.number("predict_ms"),
        total_ms=fields.number("total_ms"),
    )


def _ranked(fields: Fields) -> RankedCandidate:
    return RankedCandidate(
        index=fields.integer("index"),
        score=fields.number_or_none("score"),
        margin=fields.number_or_none("margin"),
        confidence=fields.number_or_none("confidence") if "confidence" in fields else None,
    )


def _tie(reply: Fields, tie: object) -> tuple[int, ...]:
    if not isinstance(tie, list) or not all(type(index) is int for index in tie):
        reply.fail("has ties that are not lists of indices")
    return tuple(tie)


def _check_ranking(
    reply: Fields, ranking: Sequence[RankedCandidate], results: Sequence[Result], complete: bool
) -> None:
    places = [ranked.index for ranked in ranking]
    if len(set(places)) != len(places) or any(place >= len(results) for place in places):
        reply.fail("has a ranking that names a candidate twice or one that was not sent")
    if complete and len(places) != len(results):
        reply.fail(f"has a ranking of {len(places)} for {len(results)} candidates")
    if any(ranked.score != _own_score(results[ranked.index]) for ranked in ranking):
        reply.fail("has a ranking whose scores are not those of its results")


def _check_best(reply: Fields, best: int | None, results: Sequence[Result]) -> None:
    if best is not None and (best >= len(results) or _own_score(results[best]) is None):
        reply.fail("has a best candidate that was not sent or has no score")


def _own_score(result: Result) -> float | None:
    """Return the score that the ranking uses: a substitute for a missing score has no rank."""
    return result.score if result.status == "ok" else None


def _model(fields: Fields) -> Model:
    return Model(
        id=fields.text("id"),
        name=fields.text("name"),
        version=fields.integer("version"),
        family=fields.text("family"),
        title=fields.text("title") if "title" in fields else None,
        default=fields.boolean("default") if "default" in fields else None,
        state=fields.text("state") if "state" in fields else None,
        card=fields.all,
    )
