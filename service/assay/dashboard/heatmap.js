// The score distribution by step: each column is one step or a few, darker where more scores are.

import { Plot, axes, color, line } from "./charts.js";
import { h, tableOf } from "./dom.js";
import { count, number, percent } from "./format.js";

const COLUMNS = ["Steps", "Items scored", "Mean", "Std", "10 %", "Median", "90 %"];

// The square root keeps cells with a small share visible.
const opacity = (share, largest) => 0.06 + 0.94 * Math.sqrt(share / largest);

export class HeatMap {
  constructor() {
    this.plot = new Plot("Score distribution", 336, (index) => this.describe(index));
    this.numbers = tableOf("Scores by step");
    this.element = h(
      "figure",
      { class: "panel" },
      h(
        "figcaption",
        {},
        h("h3", { class: "hidden" }, "Heat map of scores by step"),
        h(
          "div",
          { class: "legend" },
          h("span", {}, "Share of a step's scores: few ", h("i", { class: "ramp" }), " many"),
          h("span", {}, h("i", { class: "median" }), "Median"),
          h("span", {}, h("i", { class: "median dash" }), "10 % and 90 %"),
        ),
      ),
      this.plot.element,
      this.plot.readout,
      this.numbers.element,
    );
  }

  update(columns, distribution) {
    this.columns = columns;
    this.distribution = distribution;
    this.largestShare = Math.max(...distribution.shares.flat(), 1e-9);
    this.cellColor = color("heat");
    const { p10, p50, p90, mean, std } = columns.score;
    this.plot.element.setAttribute("aria-label", this.label());
    this.plot.draw(this.options(), [columns.last, p10, p50, p90]);
    this.numbers.update(() => [
      COLUMNS,
      columns.last.map((_, index) => [
        stepRange(columns, index),
        count(columns.items[index] - columns.nulls[index]),
        number(mean[index]),
        number(std[index]),
        number(p10[index]),
        number(p50[index]),
        number(p90[index]),
      ]),
      [1, 2, 3, 4, 5, 6],
    ]);
  }

  label() {
    const { first, last, score } = this.columns;
    const median = score.p50.findLast((value) => value !== null);
    return (
      `Score distribution over ${last.length} columns of steps, ${first[0]} to ${last.at(-1)}. ` +
      `Median ${number(median)} at the end. The arrow keys move through the steps.`
    );
  }

  options() {
    const { p10, p90 } = this.columns.score;
    const dash = { dash: [3, 4], width: 1.25 };
    return {
      rebuild: true,
      scales: {
        x: { time: false, range: (_, low, high) => [low - this.halfWidth(), high + this.halfWidth()] },
        y: { range: () => scoreRange(this.distribution.edges, [...p10, ...p90]) },
      },
      axes: labelledAxes(axes(number)),
      series: [
        {},
        line("10 %", "median", dash),
        line("median", "median", { width: 2 }),
        line("90 %", "median", dash),
      ],
      hooks: { drawClear: [(plot) => this.paint(plot)] },
    };
  }

  // A column is drawn around its last step, as wide as the mean distance between columns.
  halfWidth() {
    const { last } = this.columns;
    return last.length > 1 ? (last.at(-1) - last[0]) / (last.length - 1) / 2 : 0.5;
  }

  paint(plot) {
    const { ctx } = plot;
    const { edges, shares } = this.distribution;
    const { last } = this.columns;
    const y = edges.map((edge) => Math.round(plot.valToPos(edge, "y", true)));
    const half = this.halfWidth();
    const borders = last.map((step, index) => (index ? (step + last[index - 1]) / 2 : step - half));
    borders.push(last.at(-1) + half);
    const x = borders.map((border) => Math.round(plot.valToPos(border, "x", true)));
    ctx.save();
    shares.forEach((rows, column) =>
      rows.forEach((share, row) => {
        if (share === 0) return;
        ctx.fillStyle = `rgba(${this.cellColor}, ${opacity(share, this.largestShare).toFixed(3)})`;
        ctx.fillRect(x[column], y[row + 1], x[column + 1] - x[column], y[row] - y[row + 1]);
      }),
    );
    ctx.restore();
  }

  describe(index) {
    const { score, items, nulls } = this.columns;
    const { edges, shares } = this.distribution;
    const rows = shares[index];
    const steps = stepRange(this.columns, index);
    const scored = `${count(items[index] - nulls[index])} of ${count(items[index])} items scored`;
    if (!rows.length) return `Steps ${steps}: ${scored}`;
    const top = rows.indexOf(Math.max(...rows));
    return (
      `Step ${steps}: ${scored}, median ${number(score.p50[index])}, ` +
      `10 to 90 %: ${number(score.p10[index])} to ${number(score.p90[index])}; ` +
      `${percent(rows[top])} lie in ${number(edges[top])} to ${number(edges[top + 1])}`
    );
  }
}

// The lines have an error of 2 % and the cells' borders none, so a line may lie beyond the cells.
function scoreRange(edges, values) {
  const known = values.filter((value) => value !== null);
  const [low, high] = [Math.min(edges[0], ...known), Math.max(edges.at(-1), ...known)];
  const margin = 0.03 * (high - low);
  return [low - margin, high + margin];
}

// Without a horizontal grid, whose lines would look like borders of cells.
function labelledAxes([x, y]) {
  const label = { labelSize: 18, labelGap: 2, labelFont: "12px system-ui, sans-serif" };
  return [
    { ...x, ...label, label: "Step" },
    { ...y, ...label, label: "Score", grid: { show: false } },
  ];
}

const stepRange = (columns, index) =>
  columns.first[index] === columns.last[index]
    ? String(columns.last[index])
    : `${columns.first[index]}–${columns.last[index]}`;
