"""Draw a run as the server kept it, and where its rules fired first."""

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
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--run", default="hacked")
    parser.add_argument("--out", type=Path, default=Path("docs/images/hacked-run.svg"))
    given = parser.parse_args()
    base = f"{given.url}/v1/runs/{given.run}"
    streams = httpx2.get(f"{base}/series?split=train").raise_for_status().json()["streams"]
    gold = httpx2.get(f"{base}/health").raise_for_status().json()["gold"][0]["points"]
    # The trainer's figures of the last step have no scores beside them.
    steps = [one for one in streams[0]["steps"] if one["items"]]
    fired = json.loads((given.folder / "fired.json").read_text())
    draw(steps, gold, fired, given.out)


def draw(steps: Rows, gold: Rows, fired: dict[str, dict[str, Any]], out: Path) -> None:
    """Three rows over the step: reward and gold, length and entropy, and the rules."""
    # Fixed names inside, so that the same figures make the same file.
    pyplot.rcParams.update({"svg.hashsalt": "hacked", "font.size": 8, "svg.fonttype": "none"})
    figure, (top, middle, rules) = pyplot.subplots(
        3, 1, sharex=True, figsize=(7.2, 5.4), height_ratios=(3, 2, 2), layout="constrained"
    )
    at = [one["step"] for one in steps]
    top.plot(at, [one["score"]["mean"] for one in steps], color="C0", label="reward, mean")
    top.set_ylabel("reward", color="C0")
    right = top.twinx()
    right.plot(
        [one["step"] for one in gold], [one["gold"]["value"] for one in gold], "o-",
        color="C3", markersize=3, label="gold, mean",
    )  # fmt: skip
    right.set_ylabel("gold: share of right answers", color="C3")
    right.set_ylim(-0.03, 1.03)
    told = [one for one in steps if "response_tokens_mean" in one["telemetry"]]
    middle.plot(
        [one["step"] for one in told],
        [one["telemetry"]["response_tokens_mean"] for one in told],
        color="C2",
    )
    middle.set_ylabel("tokens", color="C2")
    entropy = middle.twinx()
    known = [one for one in steps if "entropy_nats" in one["telemetry"]]
    entropy.plot(
        [one["step"] for one in known],
        [one["telemetry"]["entropy_nats"] for one in known],
        color="C4",
    )
    entropy.set_ylabel("entropy (nats)", color="C4")
    names = sorted(fired, key=lambda name: _first(fired[name]), reverse=True)
    rules.scatter(
        [_first(fired[name]) for name in names], names, marker="|", s=120,
        c=["C3" if fired[name]["severity"] == "critical" else "C1" for name in names],
    )  # fmt: skip
    for name in names:
        rules.annotate(
            f"  {_first(fired[name])}", (_first(fired[name]), name), va="center", color=FAINT
        )
    rules.set_xlabel("step")
    rules.set_title("first step at which each rule fired", loc="left", fontsize=8)
    rules.margins(y=0.15)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, metadata={"Date": None})


def _first(one: dict[str, Any]) -> int:
    """The step since which it fired; of gold, which has none, the step at which it was seen."""
    return one["seen"] if one["since"] is None else one["since"]


if __name__ == "__main__":
    main()
