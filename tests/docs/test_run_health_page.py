"""The webhook that the page of run health prints is the one that its rule sends."""

import json
from dataclasses import fields

import pytest
from support.paths import DOCS

from assay_monitors.alerts import Alert
from assay_monitors.health import evaluate_rules
from assay_monitors.observations import Observation
from assay_monitors.rules.labels import SignalCollapse
from assay_monitors.summaries import Point, Summary, summarise

from .blocks import blocks_of

(BODY,) = (
    json.loads(block.text)
    for block in blocks_of(DOCS / "reference" / "run-health.md")
    if block.text.startswith('{"type": "run.alert')
)
ALERT = BODY["data"]


def step_of(neutral: int, entailment: int, contradiction: int) -> Summary:
    labels = {"neutral": neutral, "entailment": entailment, "contradiction": contradiction}
    return summarise([Observation(score=0.0, labels=labels)])


def test_the_printed_webhook_is_what_its_rule_sends() -> None:
    collapsed = [Point(step, step_of(294, 4, 2)) for step in range(118, 121)]
    series = [Point(117, step_of(270, 20, 10)), *collapsed]
    (evaluation,) = evaluate_rules(series, (SignalCollapse(),))
    assert evaluation.finding is not None
    sent = {
        "rule": evaluation.rule.id,
        "severity": evaluation.finding.severity,
        "since_step": evaluation.since_step,
        "value": pytest.approx(evaluation.finding.value),
        "threshold": evaluation.finding.threshold,
        "about": list(evaluation.finding.about),
        "evidence": pytest.approx(evaluation.finding.evidence, rel=0.01),
        "limits": evaluation.rule.limits,
    }
    assert {name: ALERT[name] for name in sent} == sent
    assert ALERT["step"] == series[-1].step
    assert BODY["type"] == "run.alert.firing"


def test_the_printed_webhook_has_the_fields_of_an_alert() -> None:
    assert list(ALERT) == [field.name for field in fields(Alert)]
