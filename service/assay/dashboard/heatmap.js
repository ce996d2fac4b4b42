// How scores are spread, step by step: each column a step or a few, the darker the more scores.

import { Plot, axes, color, line } from "./charts.js";
import { h, tableOf } from "./dom.js";
import { count, number, percent } from "./format.js";

const COLUMNS = ["Steps", "Items scored", "Mean", "Std", "10 %", "Median", "90 %"];

// A pale cell must still be seen: shares are drawn by their square root.
const shade = (share, most) => 0.06 + 0.94 * Math.sqrt(share / most);

export class HeatMap {
  constructor() {
    this.plot = new Plot("Score distribution", 336, (index) => this.at(index));
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
          { class: "keys" },
          h("span", {}, "Share of a step's scores: few ", h("i", { class: "ramp" }), " many"),
          h("span", {}, h("i", { class: "median" }), "Median"),
          h("span", {}, h("i", { class: "median dash" }), "10 % and 90 %"),
        ),
      ),
      this.plot.place,
      this.plot.readout,
      this.numbers.element,
    );
  }

  update(columns, distribution) {
    this.columns = columns;
    this.distribution = distribution;
    this.most = Math.max(...distribution.shares.flat(), 1e-9);
    this.ink = color("heat");
    const { p10, p50, p90, mean, std } = columns.score;
    const { edges } = distribution;
    const label =
      `Score distribution over ${columns.last.length} columns of steps, ${columns.first[0]} to ${columns.last.at(-1)}. ` +
      `Median ${number(p50.findLast((value) => value !== null))} at the end. The arrow keys walk through the steps.`;
    this.plot.place.setAttribute("aria-label", label);
    const dash = { dash: [3, 4], width: 1.25 };
    this.plot.draw(
      {
        rebuild: true,
        scales: {
          x: { time: false, range: (_, low, high) => this.reach(low, high) },
          y: { range: () => heights(edges, [...p10, ...p90]) },
        },
        axes: named(axes(number)),
        series: [
          {},
          line("10 %", "median", dash),
          line("median", "median", { width: 2 }),
          line("90 %", "median", dash),
        ],
        hooks: { drawClear: [(plot) => this.paint(plot)] },
      },
      [columns.last, p10, p50, p90],
    );
    this.numbers.update(() => [
      COLUMNS,
      columns.last.map((last, place) => [
        steps(columns, place),
        count(columns.items[place] - columns.nulls[place]),
        number(mean[place]),
        number(std[place]),
        number(p10[place]),
        number(p50[place]),
        number(p90[place]),
      ]),
      [1, 2, 3, 4, 5, 6],
    ]);
  }

  // A column is drawn around its last step, as wide as the way to its neighbour.
  halfWidth() {
    const { last } = this.columns;
    return last.length > 1 ? (last.at(-1) - last[0]) / (last.length - 1) / 2 : 0.5;
  }

  reach(low, high) {
    return [low - this.halfWidth(), high + this.halfWidth()];
  }

  paint(plot) {
    const { ctx } = plot;
    const { edges, shares } = this.distribution;
    const { last } = this.columns;
    const y = edges.map((edge) => Math.round(plot.valToPos(edge, "y", true)));
    const half = this.halfWidth();
    const borders = last.map((step, place) => (place ? (step + last[place - 1]) / 2 : step - half));
    borders.push(last.at(-1) + half);
    const x = borders.map((border) => Math.round(plot.valToPos(border, "x", true)));
    ctx.save();
    shares.forEach((rows, column) =>
      rows.forEach((share, row) => {
        if (share === 0) return;
        ctx.fillStyle = `rgba(${this.ink}, ${shade(share, this.most).toFixed(3)})`;
        ctx.fillRect(x[column], y[row + 1], x[column + 1] - x[column], y[row] - y[row + 1]);
      }),
    );
    ctx.restore();
  }

  at(index) {
    const { score, items, nulls } = this.columns;
    const rows = this.distribution.shares[index];
    const scored = `${count(items[index] - nulls[index])} of ${count(items[index])} items scored`;
    if (!rows.length) return `Steps ${steps(this.columns, index)}: ${scored}`;
    const place = rows.indexOf(Math.max(...rows));
    const { edges } = this.distribution;
    return (
      `Step ${steps(this.columns, index)}: ${scored}, median ${number(score.p50[index])}, ` +
      `10 to 90 %: ${number(score.p10[index])} to ${number(score.p90[index])}; ` +
      `${percent(rows[place])} lie in ${number(edges[place])} to ${number(edges[place + 1])}`
    );
  }
}

// The lines are right to 2 %, the cells' borders exact: a line may lie beyond them, or on one.
function heights(edges, values) {
  const known = values.filter((value) => value !== null);
  const [low, high] = [Math.min(edges[0], ...known), Math.max(edges.at(-1), ...known)];
  const margin = 0.03 * (high - low);
  return [low - margin, high + margin];
}

// The cells are the ground: lines across them would be read as theirs.
function named([x, y]) {
  const label = { labelSize: 18, labelGap: 2, labelFont: "12px system-ui, sans-serif" };
  return [
    { ...x, ...label, label: "Step" },
    { ...y, ...label, label: "Score", grid: { show: false } },
  ];
}

export const steps = (columns, place) =>
  columns.first[place] === columns.last[place]
    ? String(columns.last[place])
    : `${columns.first[place]}–${columns.last[place]}`;
