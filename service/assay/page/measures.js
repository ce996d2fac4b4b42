// A run's measures as small figures over steps: channels, failures and lengths, what the trainer told.

import { LineFigure } from "./charts.js";
import { h } from "./dom.js";
import { number, percent, spoken } from "./format.js";

// Figures side by side, each made when its measure is first seen and kept from then on.
export class Measures {
  constructor() {
    this.element = h("div", { class: "charts" });
    this.figures = new Map();
  }

  show(title, unit, steps, lines, format = number) {
    if (!this.figures.has(title)) {
      this.figures.set(title, new LineFigure(title, unit, format));
      this.element.append(this.figures.get(title).element);
    }
    this.figures.get(title).update(steps, lines);
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
}

export function showTold(measures, { last, telemetry }) {
  for (const [name, values] of Object.entries(telemetry)) {
    measures.show(spoken(name), "as told", last, one(spoken(name), values));
  }
}
