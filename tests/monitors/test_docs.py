"""The table of rules on the page of run health: it agrees with the rules."""

import dataclasses

import pytest
from support.paths import DOCS

from assay_monitors.health import RULES
from assay_monitors.rules.base import Rule

PAGE = (DOCS / "reference" / "run-health.md").read_text(encoding="utf-8")
TABLE = PAGE.split("## Rules")[1].split("##")[0]
ROWS = [line for line in TABLE.splitlines() if line.startswith("| `")]


def test_the_table_has_each_rule_once_in_order() -> None:
    assert [row.split("`")[1] for row in ROWS] == [rule.id for rule in RULES]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_a_row_has_the_thresholds_default_and_limits_of_its_rule(rule: Rule) -> None:
    (row,) = (row for row in ROWS if row.startswith(f"| `{rule.id}`"))
    _, _, _, thresholds, default, limits, _ = map(str.strip, row.split("|"))
    assert dataclasses.is_dataclass(rule)
    values = {field.name: getattr(rule, field.name) for field in dataclasses.fields(rule)}
    assert thresholds == ", ".join(f"`{name}` {value}" for name, value in values.items())
    assert default == ("on" if rule.is_default else "off")
    assert limits == rule.limits


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_a_rules_docstring_states_its_limits_and_its_source(rule: Rule) -> None:
    words = " ".join((type(rule).__doc__ or "").split())
    assert "cannot distinguish" in words
    assert "arXiv" in words or "No source" in words


def test_ids_are_unique() -> None:
    assert len({rule.id for rule in RULES}) == len(RULES)
