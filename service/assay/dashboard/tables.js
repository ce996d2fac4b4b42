// The tables of a run: its channels at the latest step, and its best and worst groups.

import { h, table } from "./dom.js";
import { count, number, percent } from "./format.js";

const CHANNELS = ["Channel", "Mean", "Std", "Average", "Peak", "Peak at step", "Without a value"];

export function channelTable(channels) {
  const names = Object.keys(channels);
  if (!names.length) return null;
  const rows = names.map((name) => {
    const one = channels[name];
    return [
      name,
      number(one.mean),
      number(one.std),
      number(one.average),
      number(one.peak),
      count(one.peak_step),
      percent(one.null_share),
    ];
  });
  const panel = h(
    "div",
    { class: "panel" },
    table(
      "At the latest step; the average weighs steps by their distance",
      CHANNELS,
      rows,
      [1, 2, 3, 4, 5, 6],
    ),
  );
  panel.style.marginTop = "1rem";
  return panel;
}

export function groupTables(groups) {
  if (groups === null) {
    return h(
      "p",
      { class: "notice" },
      "No group of two scored items or more was seen. Items that share a `group` are compared with each other.",
    );
  }
  const rows = (list) =>
    list.map((one) => [h("code", {}, one.group), count(one.items), number(one.low), number(one.high)]);
  const columns = ["Group", "Items", "Lowest score", "Highest score"];
  const sample = `step ${groups.step}, of ${count(groups.sampled)} sampled`;
  return h(
    "div",
    { class: "pair" },
    h(
      "div",
      { class: "panel" },
      table(`Worst: the lowest best answers (${sample})`, columns, rows(groups.worst), [1, 2, 3]),
    ),
    h(
      "div",
      { class: "panel" },
      table(`Best: the highest worst answers (${sample})`, columns, rows(groups.best), [1, 2, 3]),
    ),
  );
}
