// Line charts over steps, on uPlot: one look, one way to read a value by mouse or by arrow keys.

import { fill, h } from "./dom.js";
import { count, number, percent } from "./format.js";

export const color = (name) =>
  getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

const AXIS_FONT = "12px system-ui, sans-serif";
const SYNC = "steps";

// The plots of the room that is open: they share one cursor, and would for ever.
const plots = new Set();

export function forgetPlots() {
  plots.forEach((one) => one.forget());
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

// A plot that fills its place, tells the value under the cursor, and can be walked with the arrows.
export class Plot {
  // `describe(index)` says what there is at a place; `options` are uPlot's own.
  constructor(label, height, describe) {
    this.describe = describe;
    this.height = height;
    this.place = h("div", {
      class: height > 200 ? "plot tall" : "plot",
      tabindex: "0",
      role: "img",
      "aria-label": label,
    });
    this.readout = h("p", { class: "readout" }, " ");
    this.place.addEventListener("keydown", (event) => this.walk(event));
    this.place.addEventListener("blur", () => this.readout.removeAttribute("aria-live"));
    this.watch = new ResizeObserver(() => this.fit());
    this.watch.observe(this.place);
    plots.add(this);
  }

  draw(options, data) {
    const shape = JSON.stringify(options.series.map((one) => [one.label, one.stroke]));
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
    const width = this.place.clientWidth;
    if (!this.options || width === 0) return;
    if (this.plot) {
      if (this.plot.width !== width) this.plot.setSize({ width, height: this.height });
      return;
    }
    const hooks = { ...this.options.hooks, setCursor: [(plot) => this.tell(plot.cursor.idx)] };
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
      this.place,
    );
  }

  forget() {
    this.watch.disconnect();
    this.plot?.destroy();
    this.options = null;
  }

  tell(index) {
    this.readout.textContent = index === null || index === undefined ? " " : this.describe(index);
  }

  walk(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    if (by === undefined || !this.plot) return;
    event.preventDefault();
    const steps = this.plot.data[0];
    const from = this.plot.cursor.idx ?? (by < 0 ? steps.length : -1);
    const index = Math.max(0, Math.min(steps.length - 1, from + by));
    this.readout.setAttribute("aria-live", "polite");
    this.plot.setCursor({ left: this.plot.valToPos(steps[index], "x"), top: 1 });
    this.tell(index);
  }
}

// Shares begin at nothing, and a share of a percent is not made to look like much.
const shares = (_, low, high) => [0, Math.min(1, Math.max(0.05, high * 1.1))];

// Some air around the values; around a single value too.
function reach(_, low, high) {
  if (low === null) return [0, 1];
  const air = (high - low || Math.abs(high) || 1) * 0.08;
  return [low - air, high + air];
}

const keyOf = ({ label, stroke, dash }) =>
  h("span", {}, h("i", { class: `${stroke}${dash ? " dash" : ""}` }), label);

// A small figure with one line or a few: `lines` are `{ label, stroke, values, dash }`.
export class LineFigure {
  constructor(title, unit, format = number) {
    this.format = format;
    this.title = title;
    this.keys = h("div", { class: "keys" });
    this.plot = new Plot(title, 168, (index) => this.at(index));
    this.element = h(
      "figure",
      { class: "panel" },
      h("figcaption", {}, h("h3", {}, title), h("span", { class: "unit" }, unit)),
      this.keys,
      this.plot.place,
      this.plot.readout,
    );
  }

  update(steps, lines, bounds = null) {
    this.steps = steps;
    this.lines = lines;
    const last = lines
      .filter((one) => one.label)
      .map((one) => `${one.label} ${this.format(one.values.findLast((value) => value !== null))}`);
    this.plot.place.setAttribute("aria-label", `${this.title}, by step. Latest: ${last.join(", ")}.`);
    if (lines.length > 1) fill(this.keys, lines.filter((one) => one.label).map(keyOf));
    const options = {
      scales: {
        x: { time: false },
        y: { range: bounds ? () => bounds : this.format === percent ? shares : reach },
      },
      axes: axes(this.format),
      series: [
        {},
        ...lines.map((one) => line(one.label, one.stroke, { dash: one.dash, width: one.width ?? 1.75 })),
      ],
    };
    const alone = steps.length === 1;
    if (alone)
      options.series.slice(1).forEach((one) => {
        one.points = { show: true, size: 7 };
      });
    this.plot.draw(options, [steps, ...lines.map((one) => one.values)]);
  }

  at(index) {
    const values = this.lines
      .filter((one) => one.label)
      .map((one) => `${one.label} ${this.format(one.values[index])}`);
    return `Step ${this.steps[index]}: ${values.join(", ")}`;
  }
}
