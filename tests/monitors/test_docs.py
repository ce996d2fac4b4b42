"""What the page on run health says of the rules is what the rules are."""

import dataclasses

import pytest
from support.paths import DOCS

from assay_monitors.health import RULES
from assay_monitors.rules.finding import Rule

PAGE = (DOCS / "explanation" / "run-health.md").read_text(encoding="utf-8")
TABLE = PAGE.split("## The rules")[1].split("##")[0]
ROWS = [line for line in TABLE.splitlines() if line.startswith("| `")]


def test_the_table_has_each_rule_once_in_order() -> None:
    assert [row.split("`")[1] for row in ROWS] == [rule.id for rule in RULES]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_a_row_says_what_the_rule_is(rule: Rule) -> None:
    (row,) = (row for row in ROWS if row.startswith(f"| `{rule.id}`"))
    _, _, _, thresholds, default, limit, _ = map(str.strip, row.split("|"))
    assert dataclasses.is_dataclass(rule)
    values = {one.name: getattr(rule, one.name) for one in dataclasses.fields(rule)}
    assert thresholds == ", ".join(f"`{name}` {value}" for name, value in values.items())
    assert default == ("on" if rule.default else "off")
    assert limit == rule.cannot_tell


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_a_rule_says_what_it_cannot_tell_and_where_it_is_from(rule: Rule) -> None:
    words = " ".join((type(rule).__doc__ or "").split())
    limits = ("cannot tell", "tells neither", "looks the same")
    assert any(limit in words for limit in limits)
    assert "arXiv" in words or "No source" in words


def test_ids_are_unique() -> None:
    assert len({rule.id for rule in RULES}) == len(RULES)
