// Gold: reward accuracy with its interval, the two means, and every measurement as a table.

import { serverUrl } from "./api.js";
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
  "Responses",
  "Gradient norm",
];
const EXAMPLE = `curl -s ${serverUrl}/v1/runs/RUN/gold -H 'Content-Type: application/json' -d '{"step": 200, "source": "unit-tests", "items": [
  {"prompt": "p1", "proxy": 2.1, "gold": 1}, {"prompt": "p1", "proxy": 2.4, "gold": 0}]}'`;

export class GoldPanel {
  constructor() {
    this.element = h("div");
    this.figures = new Map();
  }

  update(sources) {
    const content = sources.length ? sources.map((source) => this.source(source)) : emptyPanel();
    fill(this.element, content);
  }

  source({ source, points }) {
    const steps = points.map((point) => point.step);
    const values = (name, part) => points.map((point) => point[name]?.[part] ?? null);
    const accuracy = this.figure(`${source}: reward accuracy`, "share of pairs, 95 % interval", percent);
    const bound = { stroke: "series-1", dash: [3, 4], width: 1 };
    accuracy.update(
      steps,
      [
        { label: "accuracy", stroke: "series-1", values: values("accuracy", "value") },
        { label: "", values: values("accuracy", "low"), ...bound },
        { label: "", values: values("accuracy", "high"), ...bound },
      ],
      [0, 1],
    );
    const gold = this.figure(`${source}: mean gold`, "as measured");
    gold.update(steps, [{ label: "gold", stroke: "series-1", values: values("gold", "value") }]);
    const proxy = this.figure(`${source}: mean reward`, "on the same responses");
    proxy.update(steps, [{ label: "reward", stroke: "series-1", values: values("proxy", "value") }]);
    const rows = points.map((point) => [
      String(point.step),
      percent(point.accuracy?.value),
      point.accuracy ? `${percent(point.accuracy.low)} to ${percent(point.accuracy.high)}` : "–",
      number(point.loss?.value),
      number(point.rank?.value),
      number(point.gold?.value),
      number(point.proxy?.value),
      count(point.gold?.n),
      number(point.gradient_norm),
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

function emptyPanel() {
  return h(
    "div",
    { class: "panel empty" },
    h("h3", {}, "No gold measurements yet"),
    h(
      "p",
      { class: "quiet" },
      "At regular steps, let the policy answer about 200 prompts twice and send both scores:",
    ),
    h("pre", { tabindex: "0", "aria-label": "Example of a request" }, h("code", {}, EXAMPLE)),
  );
}
