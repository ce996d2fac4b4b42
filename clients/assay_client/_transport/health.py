"""Parsing of a run's health from JSON."""

from __future__ import annotations

from assay_client._transport.fields import Fields, read_json
from assay_client.types import (
    Advice,
    ChannelHealth,
    GoldHealth,
    GoldMeasure,
    Interval,
    RuleProgress,
    RuleState,
    RunHealth,
    StreamHealth,
)


def read_health(body: bytes) -> RunHealth:
    """Parse the reply to `GET /v1/runs/{run}/health`.

    Raises:
        ProtocolError: the body is not such a reply.
    """
    reply = Fields(read_json(body), "reply")
    return RunHealth(
        run=reply.text("run"),
        status=reply.text("status"),
        streams=tuple(map(_stream, reply.objects("streams"))),
        gold=tuple(map(_gold, reply.objects("gold"))),
        note=reply.text("note") if "note" in reply else None,
        truncated=reply.boolean("truncated") if "truncated" in reply else False,
        damaged=reply.integer("damaged") if "damaged" in reply else 0,
    )


def _stream(fields: Fields) -> StreamHealth:
    channels = fields.object("channels")
    return StreamHealth(
        model=fields.text("model") if "model" in fields else None,
        split=fields.text("split") if "split" in fields else None,
        step=fields.integer("step"),
        status=fields.text("status"),
        rules=tuple(map(_rule, fields.objects("rules"))),
        channels={name: _channel(channels.object(name)) for name in channels.all},
    )


def _rule(fields: Fields) -> RuleState:
    return RuleState(
        rule=fields.text("rule"),
        state=fields.text("state"),
        severity=fields.text("severity") if "severity" in fields else None,
        progress=_progress(fields.object("progress")),
        since_step=fields.integer("since_step") if "since_step" in fields else None,
        value=fields.number_or_none("value"),
        threshold=fields.number_or_none("threshold"),
        about=fields.texts("about"),
        evidence=fields.numbers("evidence"),
        thresholds=fields.object("thresholds").all,
        limits=fields.text("limits"),
    )


def _progress(fields: Fields) -> RuleProgress:
    return RuleProgress(
        seen=fields.integer("seen"), needed=fields.integer("needed"), unit=fields.text("unit")
    )


def _channel(fields: Fields) -> ChannelHealth:
    return ChannelHealth(
        mean=fields.number_or_none("mean"),
        std=fields.number_or_none("std"),
        average=fields.number("average"),
        peak=fields.number("peak"),
        peak_step=fields.integer("peak_step"),
        null_share=fields.number("null_share"),
    )


def _gold(fields: Fields) -> GoldHealth:
    return GoldHealth(
        source=fields.text("source"),
        points=tuple(map(_measure, fields.objects("points"))),
        advice=_advice(fields.object("advice")) if "advice" in fields else None,
    )


def _measure(fields: Fields) -> GoldMeasure:
    return GoldMeasure(
        step=fields.integer("step"),
        proxy=_interval(fields, "proxy"),
        gold=_interval(fields, "gold"),
        accuracy=_interval(fields, "accuracy"),
        loss=_interval(fields, "loss"),
        rank=_interval(fields, "rank"),
        gradient_norm=fields.number_or_none("gradient_norm"),
    )


def _interval(fields: Fields, name: str) -> Interval | None:
    if name not in fields:
        return None
    interval = fields.object(name)
    return Interval(
        value=interval.number("value"),
        low=interval.number("low"),
        high=interval.number("high"),
        n=interval.integer("n"),
    )


def _advice(fields: Fields) -> Advice:
    return Advice(
        step=fields.integer("step"),
        action=fields.text("action"),
        grounds=fields.texts("grounds"),
        healthy_step=fields.integer("healthy_step") if "healthy_step" in fields else None,
    )
