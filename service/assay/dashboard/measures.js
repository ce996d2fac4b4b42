// A run's measures as small figures over steps: channels, failures and lengths, what the trainer told.

import { LineFigure } from "./charts.js";
import { h, tableOf } from "./dom.js";
import { number, percent, spoken } from "./format.js";

// Figures side by side, each made when its measure is first seen and kept from then on, and below them
// the numbers of all.
export class Measures {
  constructor(caption) {
    this.charts = h("div", { class: "charts" });
    this.numbers = tableOf(caption);
    this.element = h("div", {}, this.charts, this.numbers.element);
    this.figures = new Map();
    this.numbers.update(() => this.rows());
  }

  show(title, unit, steps, lines, format = number) {
    if (!this.figures.has(title)) {
      this.figures.set(title, new LineFigure(title, unit, format));
      this.charts.append(this.figures.get(title).element);
    }
    this.figures.get(title).update(steps, lines);
  }

  // All figures are shown: an open table is made anew.
  shown() {
    this.numbers.update(() => this.rows());
  }

  rows() {
    const lines = [...this.figures.values()].flatMap(({ title, format, steps, lines: drawn }) =>
      drawn.map(({ label, values }) => ({
        name: label === title || drawn.length === 1 ? title : `${title}: ${label}`,
        at: new Map(steps.map((step, place) => [step, format(values[place])])),
      })),
    );
    const steps = [...new Set([...this.figures.values()].flatMap((one) => one.steps))].sort((a, b) => a - b);
    const rows = steps.map((step) => [String(step), ...lines.map(({ at }) => at.get(step) ?? "–")]);
    return [["Step", ...lines.map(({ name }) => name)], rows, lines.map((_, place) => place + 1)];
  }

  fit() {
    this.figures.forEach((figure) => figure.plot.fit());
  }
}

const one = (label, values) => [{ label, stroke: "series-1", values }];

const shares = (part, whole) => part.map((value, place) => (whole[place] ? value / whole[place] : null));

export function showChannels(measures, { last, score, channels }) {
  measures.show("score", "mean by step", last, one("score", score.mean));
  for (const [name, values] of Object.entries(channels)) {
    const title = name === "score" ? "channel score" : name;
    measures.show(title, "mean by step", last, one(name, values));
  }
  measures.shown();
}

export function showItems(measures, columns) {
  const { last, items } = columns;
  const failed = [
    { label: "without a score", stroke: "series-2", values: shares(columns.nulls, items) },
    { label: "cut", stroke: "series-1", values: shares(columns.truncated, items), dash: [4, 3] },
    { label: "nothing to score", stroke: "series-3", values: shares(columns.invalid, items), dash: [1, 3] },
  ];
  const constant = one("no variance", shares(columns.constant_groups, columns.groups));
  measures.show("Items that failed", "share of items", last, failed, percent);
  measures.show("Response length", "median, characters", last, one("characters", columns.characters));
  measures.show("Groups without variance", "share of groups", last, constant, percent);
  measures.shown();
}

export function showTold(measures, { last, telemetry }) {
  for (const [name, values] of Object.entries(telemetry)) {
    measures.show(spoken(name), "as told", last, one(spoken(name), values));
  }
  measures.shown();
}
