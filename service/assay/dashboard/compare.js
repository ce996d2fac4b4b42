// Two runs compared: the same measures, on the same axes.

import { Problem, getJson, runPath } from "./api.js";
import { fill, h, section, status, table } from "./dom.js";
import { asWords, count, number, percent } from "./format.js";
import { Measures } from "./measures.js";
import { fetchHealthAndChart, isSameStream } from "./run.js";

export async function compare(main, names, signal) {
  if (names.length !== 2)
    throw new Problem(404, { title: "Two runs are needed", detail: "Select them on a run's page." });
  const reports = await Promise.all(names.map((name) => getJson(runPath(name), signal)));
  const streams = selectStreams(reports);
  const sides = await Promise.all(names.map((name, index) => readSide(name, streams[index], signal)));
  const measures = new Measures("Both runs by step");
  drawMeasures(measures, names, sides);
  fill(
    main,
    h("p", { class: "breadcrumbs" }, h("a", { href: "#/" }, "Overview"), " / Compare"),
    h("h1", {}, `${names[0]} and ${names[1]}`),
    h("p", { class: "legend facts" }, names.map(legendItem)),
    streamNotice(streams),
    section("summary", "At the latest step", null, h("div", { class: "panel" }, summary(names, sides))),
    section("series", "By step", null, measures.element),
  );
  measures.fit();
}

const legendItem = (name, index) =>
  h(
    "span",
    {},
    h("i", { class: index ? "series-2 dash" : "series-1" }),
    h("a", { href: `#/runs/${encodeURIComponent(name)}` }, name),
  );

// The same model and split of both where both have one, else the first stream of each.
function selectStreams([first, second]) {
  const shared = first.streams.filter((stream) =>
    second.streams.some((other) => isSameStream(other, stream)),
  );
  const selected = shared.find((stream) => stream.split === "train") ?? shared[0];
  return selected ? [selected, selected] : [first.streams[0] ?? null, second.streams[0] ?? null];
}

async function readSide(name, stream, signal) {
  const [health, chart] = await fetchHealthAndChart(name, stream, signal);
  return {
    status: health.status,
    columns: chart.streams.find((entry) => isSameStream(entry, stream))?.columns ?? null,
    health: health.streams.find((entry) => isSameStream(entry, stream)) ?? null,
  };
}

function streamNotice([first, second]) {
  if (first && second && isSameStream(first, second))
    return h("p", { class: "facts" }, `Scores of ${first.model} · ${first.split}`);
  return h(
    "p",
    { class: "notice", "data-level": "warn" },
    "These runs have no model and split in common. Scores of different models have different scales.",
  );
}

function summary(names, sides) {
  const ofBoth = (read) => sides.map(read);
  const firing = ({ health }) =>
    (health?.rules ?? [])
      .filter((rule) => rule.severity)
      .map((rule) => asWords(rule.rule))
      .join(", ") || "none";
  const itemsOf = ({ columns }) => columns?.items.reduce((sum, items) => sum + items, 0);
  const channels = new Set(sides.flatMap(({ health }) => Object.keys(health?.channels ?? {})));
  const rows = [
    ["Health", ...ofBoth((side) => status(side.status))],
    ["Latest step", ...ofBoth(({ health }) => count(health?.step))],
    ["Items", ...ofBoth((side) => count(itemsOf(side)))],
    ...[...channels].map((name) => [
      `Mean ${name}`,
      ...ofBoth(({ health }) => number(health?.channels[name]?.mean)),
    ]),
    ["Rules that fire", ...ofBoth(firing)],
  ];
  return table("Both runs at their latest step", ["Measure", ...names], rows);
}

function drawMeasures(measures, names, sides) {
  const columns = sides.map((side) => side.columns);
  for (const [title, unit, read, format] of measuresOf(columns)) {
    const series = columns.map((side) => [side?.last ?? [], (side && read(side)) ?? []]);
    const [steps, values] = joinSeries(series);
    const lines = [
      { label: names[0], stroke: "series-1", values: values[0] },
      { label: names[1], stroke: "series-2", values: values[1], dash: [5, 3] },
    ];
    measures.show(title, unit, steps, lines, format);
  }
  measures.updateTable();
}

// The measures that either run has: title, unit, how to read it from columns, and its format.
function measuresOf(columns) {
  const namesIn = (part) => [...new Set(columns.flatMap((side) => Object.keys(side?.[part] ?? {})))];
  const share = (part) => (side) =>
    side[part].map((value, index) => (side.items[index] ? value / side.items[index] : null));
  return [
    ["Mean score", "by step", (side) => side.score.mean, number],
    ["Spread of scores", "standard deviation", (side) => side.score.std, number],
    ...namesIn("channels").map((name) => [`Mean ${name}`, "by step", (side) => side.channels[name], number]),
    ["Response length", "median, characters", (side) => side.characters, number],
    ["Items without a score", "share of items", share("nulls"), percent],
    ...namesIn("telemetry").map((name) => [
      asWords(name),
      "as recorded",
      (side) => side.telemetry[name],
      number,
    ]),
  ];
}

// Two series on the steps of both; null where one has no value.
function joinSeries(series) {
  const steps = [...new Set(series.flatMap(([last]) => last))].sort((a, b) => a - b);
  return [
    steps,
    series.map(([last, values]) => {
      const byStep = new Map(last.map((step, index) => [step, values[index] ?? null]));
      return steps.map((step) => byStep.get(step) ?? null);
    }),
  ];
}
