// Line charts over steps, drawn by uPlot: shared style, values readable by mouse and by arrow keys.

import { fill, h } from "./dom.js";
import { count, number, percent } from "./format.js";

export const color = (name) =>
  getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

const AXIS_FONT = "12px system-ui, sans-serif";
const SYNC = "steps";

// The plots of the open view. They share a cursor, so those of a closed view must be removed.
const plots = new Set();

export function removePlots() {
  plots.forEach((plot) => plot.remove());
  plots.clear();
}

export function axes(format) {
  const shared = { stroke: color("quiet"), font: AXIS_FONT, ticks: { show: false } };
  const grid = { stroke: color("grid"), width: 1 };
  return [
    {
      ...shared,
      grid: { show: false },
      size: 28,
      space: 60,
      incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 1e5, 1e6],
      values: (_, ticks) => ticks.map((tick) => count(tick)),
    },
    { ...shared, grid, size: 52, space: 36, values: (_, ticks) => ticks.map((tick) => format(tick)) },
  ];
}

export const line = (label, stroke, more = {}) => ({
  label,
  stroke: color(stroke),
  width: 1.75,
  spanGaps: true,
  points: { show: false },
  ...more,
});

// A plot as wide as its element. It shows the value under the cursor, which the arrow keys move.
export class Plot {
  // `describe(index)` returns the text for the values at an index.
  constructor(label, height, describe) {
    this.describe = describe;
    this.height = height;
    this.element = h("div", {
      class: height > 200 ? "plot tall" : "plot",
      tabindex: "0",
      role: "img",
      "aria-label": label,
    });
    this.readout = h("p", { class: "readout" }, " ");
    this.element.addEventListener("keydown", (event) => this.moveCursor(event));
    this.element.addEventListener("blur", () => this.readout.removeAttribute("aria-live"));
    this.observer = new ResizeObserver(() => this.fit());
    this.observer.observe(this.element);
    plots.add(this);
  }

  // `options` are uPlot's own; the plot is created anew only where its series have changed.
  draw(options, data) {
    const shape = JSON.stringify(options.series.map((series) => [series.label, series.stroke]));
    if (this.plot && this.shape === shape && !options.rebuild) {
      this.plot.setData(data);
      return;
    }
    this.shape = shape;
    this.options = options;
    this.data = data;
    this.plot?.destroy();
    this.plot = null;
    this.fit();
  }

  fit() {
    const width = this.element.clientWidth;
    if (!this.options || width === 0) return;
    if (this.plot) {
      if (this.plot.width !== width) this.plot.setSize({ width, height: this.height });
      return;
    }
    const hooks = { ...this.options.hooks, setCursor: [(plot) => this.showValues(plot.cursor.idx)] };
    this.plot = new uPlot(
      {
        padding: [8, 8, 0, 0],
        legend: { show: false },
        ...this.options,
        cursor: { y: false, drag: { x: false, y: false }, points: { size: 7 }, sync: { key: SYNC } },
        hooks,
        width,
        height: this.height,
      },
      this.data,
      this.element,
    );
  }

  remove() {
    this.observer.disconnect();
    this.plot?.destroy();
    this.options = null;
  }

  showValues(index) {
    this.readout.textContent = index === null || index === undefined ? " " : this.describe(index);
  }

  moveCursor(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    if (by === undefined || !this.plot) return;
    event.preventDefault();
    const steps = this.plot.data[0];
    const from = this.plot.cursor.idx ?? (by < 0 ? steps.length : -1);
    const index = Math.max(0, Math.min(steps.length - 1, from + by));
    this.readout.setAttribute("aria-live", "polite");
    this.plot.setCursor({ left: this.plot.valToPos(steps[index], "x"), top: 1 });
    this.showValues(index);
  }
}

// The range of a share begins at 0 and ends at 5 % or more, so that small shares appear small.
const shareRange = (_, low, high) => [0, Math.min(1, Math.max(0.05, high * 1.1))];

// The range of the values with a margin, also around a single value.
function valueRange(_, low, high) {
  if (low === null) return [0, 1];
  const margin = (high - low || Math.abs(high) || 1) * 0.08;
  return [low - margin, high + margin];
}

const legendItem = ({ label, stroke, dash }) =>
  h("span", {}, h("i", { class: `${stroke}${dash ? " dash" : ""}` }), label);

// A small figure with one line or more: `lines` are `{ label, stroke, values, dash }`.
export class LineFigure {
  constructor(title, unit, format = number) {
    this.format = format;
    this.title = title;
    this.legend = h("div", { class: "legend" });
    this.plot = new Plot(title, 168, (index) => this.describe(index));
    this.element = h(
      "figure",
      { class: "panel" },
      h("figcaption", {}, h("h3", {}, title), h("span", { class: "unit" }, unit)),
      this.legend,
      this.plot.element,
      this.plot.readout,
    );
  }

  update(steps, lines, bounds = null) {
    this.steps = steps;
    this.lines = lines;
    const labelled = lines.filter(({ label }) => label);
    const last = labelled.map(
      ({ label, values }) => `${label} ${this.format(values.findLast((value) => value !== null))}`,
    );
    this.plot.element.setAttribute("aria-label", `${this.title}, by step. Latest: ${last.join(", ")}.`);
    if (lines.length > 1) fill(this.legend, labelled.map(legendItem));
    const options = {
      scales: {
        x: { time: false },
        y: { range: bounds ? () => bounds : this.format === percent ? shareRange : valueRange },
      },
      axes: axes(this.format),
      series: [
        {},
        ...lines.map(({ label, stroke, dash, width }) => line(label, stroke, { dash, width: width ?? 1.75 })),
      ],
    };
    // A single step has no line to draw: show its points.
    if (steps.length === 1)
      options.series.slice(1).forEach((series) => {
        series.points = { show: true, size: 7 };
      });
    this.plot.draw(options, [steps, ...lines.map(({ values }) => values)]);
  }

  describe(index) {
    const values = this.lines
      .filter(({ label }) => label)
      .map((drawn) => `${drawn.label} ${this.format(drawn.values[index])}`);
    return `Step ${this.steps[index]}: ${values.join(", ")}`;
  }
}
