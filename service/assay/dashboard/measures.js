// Measures of a run as small figures over steps: channels, failures, lengths, and telemetry.

import { LineFigure } from "./charts.js";
import { h, tableOf } from "./dom.js";
import { asWords, number, percent } from "./format.js";

// Figures side by side, each created when its measure first has values and kept from then on, and
// below them a table of all their numbers.
export class Measures {
  constructor(caption) {
    this.charts = h("div", { class: "charts" });
    this.numbers = tableOf(caption);
    this.element = h("div", {}, this.charts, this.numbers.element);
    this.figures = new Map();
    this.updateTable();
  }

  show(title, unit, steps, lines, format = number) {
    if (!this.figures.has(title)) {
      this.figures.set(title, new LineFigure(title, unit, format));
      this.charts.append(this.figures.get(title).element);
    }
    this.figures.get(title).update(steps, lines);
  }

  // To be called after the last `show`: redraws the table if it is open.
  updateTable() {
    this.numbers.update(() => this.rows());
  }

  rows() {
    const figures = [...this.figures.values()];
    const lines = figures.flatMap(({ title, format, steps, lines: drawn }) =>
      drawn.map(({ label, values }) => ({
        name: label === title || drawn.length === 1 ? title : `${title}: ${label}`,
        byStep: new Map(steps.map((step, index) => [step, format(values[index])])),
      })),
    );
    const steps = [...new Set(figures.flatMap((figure) => figure.steps))].sort((a, b) => a - b);
    const rows = steps.map((step) => [String(step), ...lines.map(({ byStep }) => byStep.get(step) ?? "–")]);
    return [["Step", ...lines.map(({ name }) => name)], rows, lines.map((_, index) => index + 1)];
  }

  fit() {
    this.figures.forEach((figure) => figure.plot.fit());
  }
}

const singleLine = (label, values) => [{ label, stroke: "series-1", values }];

const shares = (part, whole) => part.map((value, index) => (whole[index] ? value / whole[index] : null));

export function showChannels(measures, { last, score, channels }) {
  measures.show("score", "mean by step", last, singleLine("score", score.mean));
  for (const [name, values] of Object.entries(channels)) {
    const title = name === "score" ? "channel score" : name;
    measures.show(title, "mean by step", last, singleLine(name, values));
  }
  measures.updateTable();
}

export function showItems(measures, columns) {
  const { last, items } = columns;
  const failed = [
    { label: "without a score", stroke: "series-2", values: shares(columns.nulls, items) },
    { label: "truncated", stroke: "series-1", values: shares(columns.truncated, items), dash: [4, 3] },
    { label: "nothing to score", stroke: "series-3", values: shares(columns.invalid, items), dash: [1, 3] },
  ];
  const constant = singleLine("no variance", shares(columns.constant_groups, columns.groups));
  const length = singleLine("characters", columns.characters);
  measures.show("Items that failed", "share of items", last, failed, percent);
  measures.show("Response length", "median, characters", last, length);
  measures.show("Groups without variance", "share of groups", last, constant, percent);
  measures.updateTable();
}

export function showTelemetry(measures, { last, telemetry }) {
  for (const [name, values] of Object.entries(telemetry)) {
    measures.show(asWords(name), "as recorded", last, singleLine(asWords(name), values));
  }
  measures.updateTable();
}
