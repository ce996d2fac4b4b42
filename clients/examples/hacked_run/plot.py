"""Plot a run as the server recorded it, with the step at which each rule fired first."""

import argparse
import json
from pathlib import Path
from typing import Any

import httpx2
import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot

FAINT = "#999999"
Rows = list[dict[str, Any]]


def main() -> None:
    """Write the plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--run", default="hacked")
    parser.add_argument("--out", type=Path, default=Path("docs/images/hacked-run.svg"))
    given = parser.parse_args()
    base = f"{given.url}/v1/runs/{given.run}"
    streams = httpx2.get(f"{base}/series?split=train").raise_for_status().json()["streams"]
    gold = httpx2.get(f"{base}/health").raise_for_status().json()["gold"][0]["points"]
    # The last step has the trainer's figures only, and no scores.
    steps = [row for row in streams[0]["steps"] if row["items"]]
    fired = json.loads((given.folder / "fired.json").read_text())
    draw(steps, gold, fired, given.out)


def draw(steps: Rows, gold: Rows, fired: dict[str, dict[str, Any]], out: Path) -> None:
    """Plot three rows over the steps: reward and gold, length and entropy, and the rules."""
    # Fixed ids in the SVG, so that the same figures make the same file.
    pyplot.rcParams.update({"svg.hashsalt": "hacked", "font.size": 8, "svg.fonttype": "none"})
    figure, (top, middle, rules) = pyplot.subplots(
        3, 1, sharex=True, figsize=(7.2, 5.4), height_ratios=(3, 2, 2), layout="constrained"
    )
    top.plot(
        [row["step"] for row in steps], [row["score"]["mean"] for row in steps],
        color="C0", label="reward, mean",
    )  # fmt: skip
    top.set_ylabel("reward", color="C0")
    right = top.twinx()
    right.plot(
        [row["step"] for row in gold], [row["gold"]["value"] for row in gold], "o-",
        color="C3", markersize=3, label="gold, mean",
    )  # fmt: skip
    right.set_ylabel("gold: share of right answers", color="C3")
    right.set_ylim(-0.03, 1.03)
    _plot_telemetry(middle, steps, "response_tokens_mean", "C2")
    middle.set_ylabel("tokens", color="C2")
    entropy = middle.twinx()
    _plot_telemetry(entropy, steps, "entropy_nats", "C4")
    entropy.set_ylabel("entropy (nats)", color="C4")
    _plot_rules(rules, fired)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, metadata={"Date": None})


def _plot_telemetry(axes: Any, steps: Rows, name: str, colour: str) -> None:
    rows = [row for row in steps if name in row["telemetry"]]
    values = [row["telemetry"][name] for row in rows]
    axes.plot([row["step"] for row in rows], values, color=colour)


def _plot_rules(rules: Any, fired: dict[str, dict[str, Any]]) -> None:
    names = sorted(fired, key=lambda name: _first_step(fired[name]), reverse=True)
    rules.scatter(
        [_first_step(fired[name]) for name in names], names, marker="|", s=120,
        c=["C3" if fired[name]["severity"] == "critical" else "C1" for name in names],
    )  # fmt: skip
    for name in names:
        step = _first_step(fired[name])
        rules.annotate(f"  {step}", (step, name), va="center", color=FAINT)
    rules.set_xlabel("step")
    rules.set_title("first step at which each rule fired", loc="left", fontsize=8)
    rules.margins(y=0.15)


def _first_step(rule: dict[str, Any]) -> int:
    """Return the step since which a rule fired; for gold, which has none, that of the check."""
    return rule["seen"] if rule["since"] is None else rule["since"]


if __name__ == "__main__":
    main()
