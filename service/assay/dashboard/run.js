// The page of a run: alerts, score distribution, rules over time, measures, gold and groups.

import { Alerts } from "./alerts.js";
import { getJson, runPath } from "./api.js";
import { fill, h, section, status } from "./dom.js";
import { ago, count, dateOf, duration } from "./format.js";
import { GoldPanel } from "./gold.js";
import { HeatMap } from "./heatmap.js";
import { pause, showConnection, subscribe } from "./live.js";
import { Measures, showChannels, showItems, showTelemetry } from "./measures.js";
import { channelTable, groupTables } from "./tables.js";
import { Timeline } from "./timeline.js";

// Evaluating a long run takes the server time, so the page rests after each response: for at least
// REST_MS, and REST_FACTOR times as long as the response took.
const REST_MS = 3000;
const REST_FACTOR = 20;

export async function run(main, [name, model, split], signal) {
  const [report, recorded] = await Promise.all([
    getJson(runPath(name), signal),
    getJson("v1/runs", signal),
  ]);
  const { streams } = report;
  const selected = streams.find((stream) => stream.model === model && stream.split === split);
  const view = new RunView(report, selected ?? defaultStream(streams));
  await view.read(signal);
  fill(main, view.head(recorded.runs.map((other) => other.run)), view.sections);
  view.fit();
  updateLive(view, signal);
}

const defaultStream = (streams) =>
  streams.find((stream) => stream.split === "train") ?? streams[0] ?? null;

export async function fetchHealthAndChart(name, stream, signal) {
  const query = stream ? `?${new URLSearchParams({ model: stream.model, split: stream.split })}` : "";
  return Promise.all([
    getJson(`${runPath(name)}/health`, signal),
    getJson(`${runPath(name)}/chart${query}`, signal),
  ]);
}

// Whether two are of the same model and split; null stands for the stream of telemetry alone.
export const isSameStream = (entry, stream) =>
  entry.model === (stream?.model ?? null) && entry.split === (stream?.split ?? null);

async function updateLive(view, signal) {
  const clock = setInterval(() => view.showTime(), 5000);
  signal.addEventListener("abort", () => clearInterval(clock), { once: true });
  let restUntil = 0;
  await subscribe(view.name, view.lastSeen, signal, async () => {
    await pause(restUntil - Date.now(), signal);
    if (signal.aborted) return;
    const began = Date.now();
    try {
      await view.read(signal);
    } catch (error) {
      if (error.name !== "AbortError") showConnection("lost");
    }
    restUntil = Date.now() + Math.max(REST_MS, REST_FACTOR * (Date.now() - began));
  });
}

class RunView {
  constructor(report, stream) {
    this.name = report.run;
    this.report = report;
    this.stream = stream;
    this.level = h("span");
    this.note = h("p", { class: "note" });
    this.time = h("span");
    this.size = h("span");
    this.alerts = new Alerts();
    this.heatMap = new HeatMap();
    this.scores = h("div");
    this.timeline = new Timeline();
    this.channels = new Measures("Channels by step");
    this.channelNumbers = h("div");
    this.items = new Measures("Items by step");
    this.telemetry = new Measures("Telemetry by step");
    this.gold = new GoldPanel();
    this.groups = h("div");
    this.sections = this.createSections();
  }

  createSections() {
    const { channels, channelNumbers } = this;
    return [
      section(
        "alerts",
        "Alerts",
        "Rules that fire at the latest step. They detect a failure and do not predict it. Each alert shows its evidence and what the rule cannot distinguish.",
        this.alerts.element,
      ),
      section("scores", "Score distribution", null, this.scores),
      section("rules", "Rules over time", "The steps at which each rule fired.", this.timeline.element),
      section(
        "channels",
        "Channels",
        "The parts of the score, on their own scales.",
        channels.element,
        channelNumbers,
      ),
      section("items", "Items", null, this.items.element),
      section(
        "telemetry",
        "Telemetry",
        "Values that the trainer sent for this run, by step.",
        this.telemetry.element,
      ),
      section(
        "gold",
        "Gold",
        "Agreement of the reward with a source that is not part of it, on responses of the policy.",
        this.gold.element,
      ),
      section(
        "groups",
        "Groups",
        "From a sample of the latest step. A group is shown by a digest of its name; no text is kept.",
        this.groups,
      ),
    ];
  }

  async read(signal) {
    const [health, chart] = await fetchHealthAndChart(this.name, this.stream, signal);
    this.lastSeen = chart.last_seen;
    this.update(health, chart);
  }

  update(health, chart) {
    const streamChart = chart.streams.find((entry) => isSameStream(entry, this.stream));
    const streamHealth = health.streams.find((entry) => isSameStream(entry, this.stream)) ?? null;
    const columns = streamChart?.columns.last.length ? streamChart.columns : null;
    fill(this.level, status(health.status));
    this.note.textContent = health.note ?? "";
    this.showTime();
    this.alerts.update(health, streamHealth);
    this.gold.update(health.gold);
    this.drawScores(columns, streamChart?.distribution ?? null);
    if (columns) this.drawSteps(streamChart, streamHealth);
    this.hideSections({
      rules: !columns,
      channels: !streamChart?.distribution,
      items: !columns?.items.some((items) => items > 0),
      telemetry: !Object.keys(columns?.telemetry ?? {}).length,
    });
  }

  drawScores(columns, distribution) {
    if (distribution) {
      if (this.heatMap.element.parentNode !== this.scores) fill(this.scores, this.heatMap.element);
      this.heatMap.update(columns, distribution);
      return;
    }
    const text = columns
      ? "No item of this run has a score."
      : "This run has no scores and no telemetry. Its gold measurements are below.";
    fill(this.scores, h("p", { class: "notice" }, text));
  }

  drawSteps(streamChart, streamHealth) {
    const { columns } = streamChart;
    const items = columns.items.reduce((sum, inColumn) => sum + inColumn, 0);
    this.size.textContent = `${count(items)} items, step ${columns.first[0]} to ${columns.last.at(-1)}`;
    this.timeline.update(streamChart, streamHealth?.rules ?? []);
    showChannels(this.channels, columns);
    fill(this.channelNumbers, channelTable(streamHealth?.channels ?? {}));
    showItems(this.items, columns);
    showTelemetry(this.telemetry, columns);
    fill(this.groups, groupTables(streamChart.groups));
  }

  // Hide the sections without content.
  hideSections(isEmpty) {
    this.sections.forEach((element) => {
      element.hidden = isEmpty[element.id] ?? false;
    });
  }

  showTime() {
    this.time.textContent = `last seen ${ago(this.lastSeen)}`;
    this.time.title = dateOf(this.lastSeen);
  }

  head(names) {
    const { first_seen: first, last_seen: last } = this.report;
    return [
      h("p", { class: "breadcrumbs" }, h("a", { href: "#/" }, "Overview"), " / Run"),
      h("h1", {}, this.name),
      this.note,
      h(
        "p",
        { class: "facts" },
        this.level,
        this.time,
        this.size,
        h("span", {}, `began ${dateOf(first)}, lasted ${duration(last - first)}`),
      ),
      h(
        "div",
        { class: "controls" },
        this.select("Scores of", this.streamOptions()),
        this.select("Compare with", this.compareOptions(names.filter((name) => name !== this.name))),
      ),
    ];
  }

  select(label, options) {
    const open = (event) => {
      location.hash = event.target.value;
    };
    return options.length
      ? h("label", { class: "field" }, label, h("select", { onchange: open }, options))
      : null;
  }

  streamOptions() {
    return this.report.streams.map((stream) => {
      const path = [this.name, stream.model, stream.split].map(encodeURIComponent).join("/");
      const selected = this.stream !== null && isSameStream(stream, this.stream);
      return h("option", { value: `#/runs/${path}`, selected }, `${stream.model} · ${stream.split}`);
    });
  }

  compareOptions(names) {
    if (!names.length) return [];
    const path = (name) => `#/compare/${encodeURIComponent(this.name)}/${encodeURIComponent(name)}`;
    const none = h("option", { value: location.hash }, "another run…");
    return [none, ...names.map((name) => h("option", { value: path(name) }, name))];
  }

  fit() {
    this.heatMap.plot.fit();
    [this.channels, this.items, this.telemetry, this.gold].forEach((panel) => panel.fit());
  }
}
