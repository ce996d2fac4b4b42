"""Replies of a healthy server, as JSON, with fields that no client knows yet."""

from collections.abc import Mapping, Sequence
from typing import Any


def result(index: int, item: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result of an item: its `value` is the score, and an item without it fails."""
    value = item.get("value")
    failed = value is None
    return {
        "index": index,
        "id": item.get("id"),
        "group": item.get("group"),
        "status": "error" if failed else "ok",
        "score": value,
        "raw": value,
        "channels": {"reward": value},
        "flags": [],
        "tokens": 3,
        "source": None if failed else "computed",
        "details": {},
        "error": {"code": "input_too_long", "detail": "shorten it"} if failed else None,
        "a_field_of_tomorrow": [1],
    }


def group_statistics(results: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """Return the group statistics of results, or None if they name no group."""
    statistics = []
    for name in dict.fromkeys(row["group"] for row in results if row["group"] is not None):
        scores = [row["score"] for row in results if row["group"] == name]
        valid = [score for score in scores if score is not None]
        ranks = [
            None if score is None else 1 + sum(other > score for other in valid) for score in scores
        ]
        statistics.append(
            {"group": name, "n": len(scores), "scored": len(valid), "mean": None, "std": None}
            | {"ranks": ranks, "zero_variance": False}
        )
    return statistics or None


def score_reply(items: Sequence[Mapping[str, Any]], model: str = "code") -> dict[str, Any]:
    """Return the reply to a scoring request; a bare name of the model means version 1."""
    results = [result(index, item) for index, item in enumerate(items)]
    count = len(items)
    return {
        "id": "score-1",
        "model": model if "@" in model else f"{model}@1",
        "fingerprint": "sha256:aa",
        "results": results,
        "groups": group_statistics(results),
        "usage": {"items": count, "tokens": 3 * count, "computed": count, "cached": 0}
        | {"shared": 0, "rule": 0, "failed": 0, "another_field_of_tomorrow": 7},
        "timing": {"prepare_ms": 0.5, "queue_ms": 1.0, "predict_ms": 2.0, "total_ms": 4},
    }


def best_reply(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the reply to a best-of-n request."""
    items = [
        candidate if isinstance(candidate, dict) else {"value": None}
        for candidate in body["candidates"]
    ]
    reply = score_reply(items, body.get("model", "code"))
    scores = [row["score"] for row in reply["results"]]
    order = sorted(range(len(scores)), key=lambda i: (scores[i] is None, -(scores[i] or 0)))
    ranking = [{"index": i, "score": scores[i], "margin": None} for i in order]
    best = order[0] if scores[order[0]] is not None else None
    extra = {"best": best, "ties": [[0, 1]], "abstained": best is None}
    return {**reply, **extra, "ranking": ranking[: body.get("top_n")]}


MODEL = {"id": "code@1", "name": "code", "version": 1, "family": "code", "title": "Code"}


RULE = {
    "rule": "null_share",
    "state": "fired",
    "severity": "critical",
    "progress": {"seen": 200, "needed": 200, "unit": "items"},
    "since_step": 3,
    "value": 0.5,
    "threshold": 0.2,
    "about": ["reward"],
    "evidence": {"items": 256},
    "thresholds": {"warn": 0.02, "critical": 0.2},
    "limits": "why",
}
SILENT = {
    **RULE,
    **dict.fromkeys(("severity", "since_step", "value", "threshold")),
    "rule": "kl_jump",
    "state": "waiting",
    "progress": {"seen": 3, "needed": 6, "unit": "steps"},
    "about": [],
    "evidence": {},
}
CHANNEL = {"mean": None, "std": None, "average": 1, "peak": 2, "peak_step": 1, "null_share": 0.5}
INTERVAL = {"value": 0.5, "low": 0.25, "high": 0.75, "n": 200}
GOLD = {
    "source": "tests",
    "points": [
        {"step": 200, "gradient_norm": None, "rank": None}
        | dict.fromkeys(("proxy", "gold", "accuracy", "loss"), INTERVAL)
    ],
    "advice": {"step": 200, "action": "stop", "grounds": ["drawdown"], "healthy_step": None},
}
HEALTH = {
    "run": "team/exp-17",
    "status": "critical",
    "streams": [
        {
            "model": "code@1",
            "split": "train",
            "step": 4,
            "status": "critical",
        }
        | {"rules": [RULE, SILENT], "channels": {"score": CHANNEL}, "a_field_of_tomorrow": 1}
    ],
    "gold": [GOLD],
}
