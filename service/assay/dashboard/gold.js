// Gold: reward accuracy with its interval, the two means, and every measurement as a table.

import { here } from "./api.js";
import { LineFigure } from "./charts.js";
import { fill, h, table } from "./dom.js";
import { count, number, percent } from "./format.js";

const COLUMNS = [
  "Step",
  "Reward accuracy",
  "95 % interval",
  "Bradley-Terry loss",
  "Rank correlation",
  "Mean gold",
  "Mean reward",
  "Answers",
  "Gradient norm",
];
const EXAMPLE = `curl -s ${here}/v1/runs/RUN/gold -H 'Content-Type: application/json' -d '{"step": 200, "source": "unit-tests", "items": [
  {"prompt": "p1", "proxy": 2.1, "gold": 1}, {"prompt": "p1", "proxy": 2.4, "gold": 0}]}'`;

export class GoldRoom {
  constructor() {
    this.element = h("div");
    this.figures = new Map();
  }

  update(sources) {
    if (!sources.length) {
      fill(
        this.element,
        h(
          "div",
          { class: "panel empty" },
          h("h3", {}, "Nothing was measured against gold"),
          h(
            "p",
            { class: "quiet" },
            "Every so many steps, let the policy answer some 200 prompts twice and send both scores:",
          ),
          h("pre", { tabindex: "0", "aria-label": "Example of a request" }, h("code", {}, EXAMPLE)),
        ),
      );
      return;
    }
    fill(
      this.element,
      sources.map((one) => this.source(one)),
    );
  }

  source({ source, points }) {
    const steps = points.map((one) => one.step);
    const of = (name, part) => points.map((one) => one[name]?.[part] ?? null);
    const accuracy = this.figure(`${source}: reward accuracy`, "share of pairs, 95 % interval", percent);
    const bound = { stroke: "series-1", dash: [3, 4], width: 1 };
    accuracy.update(
      steps,
      [
        { label: "accuracy", stroke: "series-1", values: of("accuracy", "value") },
        { label: "", values: of("accuracy", "low"), ...bound },
        { label: "", values: of("accuracy", "high"), ...bound },
      ],
      [0, 1],
    );
    const gold = this.figure(`${source}: mean gold`, "as measured");
    gold.update(steps, [{ label: "gold", stroke: "series-1", values: of("gold", "value") }]);
    const proxy = this.figure(`${source}: mean reward`, "on the same answers");
    proxy.update(steps, [{ label: "reward", stroke: "series-1", values: of("proxy", "value") }]);
    const rows = points.map((one) => [
      String(one.step),
      percent(one.accuracy?.value),
      one.accuracy ? `${percent(one.accuracy.low)} to ${percent(one.accuracy.high)}` : "–",
      number(one.loss?.value),
      number(one.rank?.value),
      number(one.gold?.value),
      number(one.proxy?.value),
      count(one.gold?.n),
      number(one.gradient_norm),
    ]);
    const panel = h(
      "div",
      { class: "panel" },
      table(`Measured against ${source}`, COLUMNS, rows, [1, 2, 3, 4, 5, 6, 7, 8]),
    );
    panel.style.marginTop = "1rem";
    return [h("div", { class: "charts" }, accuracy.element, gold.element, proxy.element), panel];
  }

  figure(title, unit, format) {
    if (!this.figures.has(title)) this.figures.set(title, new LineFigure(title, unit, format));
    return this.figures.get(title);
  }

  fit() {
    this.figures.forEach((figure) => figure.plot.fit());
  }
}
