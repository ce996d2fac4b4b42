// Tables of a run: its channels at the latest step, and its worst and best groups.

import { h, table } from "./dom.js";
import { count, number, percent } from "./format.js";

const CHANNEL_COLUMNS = ["Channel", "Mean", "Std", "Average", "Peak", "Peak at step", "Without a value"];
const GROUP_COLUMNS = ["Group", "Items", "Lowest score", "Highest score"];

export function channelTable(channels) {
  const names = Object.keys(channels);
  if (!names.length) return null;
  const rows = names.map((name) => {
    const channel = channels[name];
    return [
      name,
      number(channel.mean),
      number(channel.std),
      number(channel.average),
      number(channel.peak),
      count(channel.peak_step),
      percent(channel.null_share),
    ];
  });
  const caption = "At the latest step; the average weighs steps by their distance";
  const panel = h(
    "div",
    { class: "panel" },
    table(caption, CHANNEL_COLUMNS, rows, [1, 2, 3, 4, 5, 6]),
  );
  panel.style.marginTop = "1rem";
  return panel;
}

export function groupTables(groups) {
  if (groups === null) {
    return h(
      "p",
      { class: "notice" },
      "There is no group of two scored items or more yet. Items that share a `group` are compared with each other.",
    );
  }
  const rows = (list) =>
    list.map((group) => [
      h("code", {}, group.group),
      count(group.items),
      number(group.low),
      number(group.high),
    ]);
  const sample = `step ${groups.step}, of ${count(groups.sampled)} sampled`;
  const panel = (caption, list) =>
    h("div", { class: "panel" }, table(`${caption} (${sample})`, GROUP_COLUMNS, rows(list), [1, 2, 3]));
  return h(
    "div",
    { class: "pair" },
    panel("Worst: the lowest best answers", groups.worst),
    panel("Best: the highest worst answers", groups.best),
  );
}
