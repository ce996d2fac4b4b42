// Two runs side by side: the same measures, on the same axes.

import { Problem, json, runPath } from "./api.js";
import { fill, h, section, status, table } from "./dom.js";
import { count, number, percent, spoken } from "./format.js";
import { Measures } from "./measures.js";
import { questions, sameStream } from "./run.js";

export async function compare(main, names, signal) {
  if (names.length !== 2)
    throw new Problem(404, { title: "Two runs are compared", detail: "Choose them on a run's page." });
  const reports = await Promise.all(names.map((name) => json(runPath(name), signal)));
  const streams = chosen(reports);
  const sides = await Promise.all(names.map((name, side) => look(name, streams[side], signal)));
  const measures = new Measures("Both runs by step");
  draw(measures, names, sides);
  fill(
    main,
    h("p", { class: "trail" }, h("a", { href: "#/" }, "Overview"), " / Compare"),
    h("h1", {}, `${names[0]} and ${names[1]}`),
    h(
      "p",
      { class: "keys facts" },
      names.map((name, side) =>
        h(
          "span",
          {},
          h("i", { class: side ? "series-2 dash" : "series-1" }),
          h("a", { href: `#/runs/${encodeURIComponent(name)}` }, name),
        ),
      ),
    ),
    warning(streams),
    section("summary", "At the latest step", null, h("div", { class: "panel" }, summary(names, sides))),
    section("series", "By step", null, measures.element),
  );
  measures.fit();
}

// The same model and split of both where there are such, else what each was scored with first.
function chosen([one, other]) {
  const both = one.streams.filter((stream) => other.streams.some((its) => sameStream(its, stream)));
  const first = both.find((stream) => stream.split === "train") ?? both[0];
  return first ? [first, first] : [one.streams[0] ?? null, other.streams[0] ?? null];
}

async function look(name, stream, signal) {
  const [health, chart] = await questions(name, stream, signal);
  return {
    health,
    columns: chart.streams.find((one) => sameStream(one, stream))?.columns ?? null,
    judged: health.streams.find((one) => sameStream(one, stream)) ?? null,
  };
}

function warning([one, other]) {
  if (one && other && sameStream(one, other))
    return h("p", { class: "facts" }, `Scores of ${one.model} · ${one.split}`);
  return h(
    "p",
    { class: "notice", "data-level": "warn" },
    "These runs were not scored by the same model in the same split. Scores of different models have scales of their own.",
  );
}

function summary(names, sides) {
  const of = (tell) => sides.map(tell);
  const firing = ({ judged }) =>
    (judged?.rules ?? [])
      .filter((one) => one.severity)
      .map((one) => spoken(one.rule))
      .join(", ") || "none";
  const rows = [
    ["Health", ...of(({ health }) => status(health.status))],
    ["Latest step", ...of(({ judged }) => count(judged?.step))],
    ["Items", ...of(({ columns }) => count(columns?.items.reduce((sum, items) => sum + items, 0)))],
    ...[...new Set(sides.flatMap(({ judged }) => Object.keys(judged?.channels ?? {})))].map((name) => [
      `Mean ${name}`,
      ...of(({ judged }) => number(judged?.channels[name]?.mean)),
    ]),
    ["Rules that fire", ...of(firing)],
  ];
  return table("Both runs at their latest step", ["Measure", ...names], rows);
}

function draw(measures, names, sides) {
  const columns = sides.map((side) => side.columns);
  const share = (part) => (one) =>
    one[part].map((value, index) => (one.items[index] ? value / one.items[index] : null));
  const all = [
    ["Mean score", "by step", (one) => one.score.mean, number],
    ["Spread of scores", "standard deviation", (one) => one.score.std, number],
    ...[...new Set(columns.flatMap((one) => Object.keys(one?.channels ?? {})))].map((name) => [
      `Mean ${name}`,
      "by step",
      (one) => one.channels[name],
      number,
    ]),
    ["Response length", "median, characters", (one) => one.characters, number],
    ["Items without a score", "share of items", share("nulls"), percent],
    ...[...new Set(columns.flatMap((one) => Object.keys(one?.telemetry ?? {})))].map((name) => [
      spoken(name),
      "as told",
      (one) => one.telemetry[name],
      number,
    ]),
  ];
  for (const [title, unit, pick, format] of all) {
    const [steps, values] = joined(columns.map((one) => [one?.last ?? [], (one && pick(one)) ?? []]));
    const lines = [
      { label: names[0], stroke: "series-1", values: values[0] },
      { label: names[1], stroke: "series-2", values: values[1], dash: [5, 3] },
    ];
    measures.show(title, unit, steps, lines, format);
  }
  measures.shown();
}

// Two series on the steps of both.
function joined(parts) {
  const steps = [...new Set(parts.flatMap(([last]) => last))].sort((one, other) => one - other);
  return [
    steps,
    parts.map(([last, values]) => {
      const by = new Map(last.map((step, place) => [step, values[place] ?? null]));
      return steps.map((step) => by.get(step) ?? null);
    }),
  ];
}
