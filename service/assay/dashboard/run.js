// A run: is its reward still a reward? What fires, how scores spread, and what they rest on.

import { Alerts } from "./alerts.js";
import { json, runPath } from "./api.js";
import { fill, h, section, status } from "./dom.js";
import { ago, count, span, when } from "./format.js";
import { GoldRoom } from "./gold.js";
import { HeatMap } from "./heatmap.js";
import { follow, pause, show } from "./live.js";
import { Measures, showChannels, showItems, showTold } from "./measures.js";
import { channelTable, groupTables } from "./tables.js";
import { Timeline } from "./timeline.js";

// Judging a long run takes the server time. So the page rests after each answer, for as long as this
// at least, and so many times as long as the answer took.
const REST_MS = 3000;
const REST_TIMES = 20;

export async function run(main, [name, model, split], signal) {
  const [report, kept] = await Promise.all([json(runPath(name), signal), json("v1/runs", signal)]);
  const { streams } = report;
  const stream = streams.find((one) => one.model === model && one.split === split) ?? preferred(streams);
  const room = new RunRoom(report, stream);
  await room.read(signal);
  fill(main, room.head(kept.runs.map((one) => one.run)), room.sections);
  room.fit();
  watch(room, signal);
}

const preferred = (streams) => streams.find((one) => one.split === "train") ?? streams[0] ?? null;

export async function questions(name, stream, signal) {
  const query = stream ? `?${new URLSearchParams({ model: stream.model, split: stream.split })}` : "";
  return Promise.all([
    json(`${runPath(name)}/health`, signal),
    json(`${runPath(name)}/chart${query}`, signal),
  ]);
}

export const sameStream = (one, stream) =>
  one.model === (stream?.model ?? null) && one.split === (stream?.split ?? null);

async function watch(room, signal) {
  const clock = setInterval(() => room.tellTime(), 5000);
  signal.addEventListener("abort", () => clearInterval(clock), { once: true });
  let rested = 0;
  await follow(room.name, room.lastSeen, signal, async () => {
    await pause(rested - Date.now(), signal);
    if (signal.aborted) return;
    const began = Date.now();
    try {
      await room.read(signal);
    } catch (error) {
      if (error.name !== "AbortError") show("lost");
    }
    rested = Date.now() + Math.max(REST_MS, REST_TIMES * (Date.now() - began));
  });
}

class RunRoom {
  constructor(report, stream) {
    this.name = report.run;
    this.report = report;
    this.stream = stream;
    this.level = h("span");
    this.time = h("span");
    this.extent = h("span");
    this.alerts = new Alerts();
    this.heat = new HeatMap();
    this.heatPlace = h("div");
    this.timeline = new Timeline();
    this.channels = new Measures("Channels by step");
    this.channelNumbers = h("div");
    this.items = new Measures("Items by step");
    this.told = new Measures("Told by step");
    this.gold = new GoldRoom();
    this.groups = h("div");
    this.sections = this.laidOut();
  }

  laidOut() {
    const { channels, channelNumbers } = this;
    return [
      section(
        "alerts",
        "What fires now",
        "A rule detects, it does not foresee. Each says what it rests on and what it cannot tell.",
        this.alerts.element,
      ),
      section("scores", "Score distribution", null, this.heatPlace),
      section("rules", "Rules over time", "From the step at which each rule fired.", this.timeline.element),
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
        "What the trainer told",
        "By step, as it was sent to this run's telemetry.",
        this.told.element,
      ),
      section(
        "gold",
        "Gold",
        "How well the reward agrees with a source that pays nothing, on what the policy writes.",
        this.gold.element,
      ),
      section(
        "groups",
        "Groups",
        "Of a sample of the latest step. A group is told by a digest of its name; no text is kept.",
        this.groups,
      ),
    ];
  }

  async read(signal) {
    const [health, chart] = await questions(this.name, this.stream, signal);
    this.lastSeen = chart.last_seen;
    this.update(health, chart);
  }

  update(health, chart) {
    const drawn = chart.streams.find((one) => sameStream(one, this.stream));
    const judged = health.streams.find((one) => sameStream(one, this.stream)) ?? null;
    const columns = drawn?.columns.last.length ? drawn.columns : null;
    fill(this.level, status(health.status));
    this.tellTime();
    this.alerts.update(health, judged);
    this.gold.update(health.gold);
    this.drawScores(columns, drawn?.distribution ?? null);
    if (columns) this.drawSteps(drawn, judged);
    this.hide({
      rules: !columns,
      channels: !drawn?.distribution,
      items: !columns?.items.some((items) => items > 0),
      telemetry: !Object.keys(columns?.telemetry ?? {}).length,
    });
  }

  drawScores(columns, distribution) {
    if (distribution) {
      if (this.heat.element.parentNode !== this.heatPlace) fill(this.heatPlace, this.heat.element);
      this.heat.update(columns, distribution);
      return;
    }
    const words = columns
      ? "No item of this run has a score: there is nothing to spread."
      : "Nothing was scored for this run, and its trainer told nothing. Its gold is below.";
    fill(this.heatPlace, h("p", { class: "notice" }, words));
  }

  drawSteps(drawn, judged) {
    const { columns } = drawn;
    const items = columns.items.reduce((sum, one) => sum + one, 0);
    this.extent.textContent = `${count(items)} items, step ${columns.first[0]} to ${columns.last.at(-1)}`;
    this.timeline.update(drawn, judged?.rules ?? []);
    showChannels(this.channels, columns);
    fill(this.channelNumbers, channelTable(judged?.channels ?? {}));
    showItems(this.items, columns);
    showTold(this.told, columns);
    fill(this.groups, groupTables(drawn.groups));
  }

  // Sections that have nothing to show are left out.
  hide(empty) {
    this.sections.forEach((one) => {
      one.hidden = empty[one.id] ?? false;
    });
  }

  tellTime() {
    this.time.textContent = `seen ${ago(this.lastSeen)}`;
    this.time.title = when(this.lastSeen);
  }

  head(names) {
    const { first_seen: first, last_seen: last } = this.report;
    return [
      h("p", { class: "trail" }, h("a", { href: "#/" }, "Overview"), " / Run"),
      h("h1", {}, this.name),
      h(
        "p",
        { class: "facts" },
        this.level,
        this.time,
        this.extent,
        h("span", {}, `began ${when(first)}, lasted ${span(last - first)}`),
      ),
      h(
        "div",
        { class: "controls" },
        this.choice(
          "Scores of",
          this.report.streams.map((one) => this.streamOption(one)),
        ),
        this.choice("Compare with", this.otherOptions(names.filter((one) => one !== this.name))),
      ),
    ];
  }

  choice(label, options) {
    const go = (event) => {
      location.hash = event.target.value;
    };
    return options.length
      ? h("label", { class: "field" }, label, h("select", { onchange: go }, options))
      : null;
  }

  streamOption(one) {
    const place = [this.name, one.model, one.split].map(encodeURIComponent).join("/");
    const selected = this.stream !== null && sameStream(one, this.stream);
    return h("option", { value: `#/runs/${place}`, selected }, `${one.model} · ${one.split}`);
  }

  otherOptions(names) {
    if (!names.length) return [];
    const place = (name) => `#/compare/${encodeURIComponent(this.name)}/${encodeURIComponent(name)}`;
    const nothing = h("option", { value: location.hash }, "another run…");
    return [nothing, ...names.map((name) => h("option", { value: place(name) }, name))];
  }

  fit() {
    this.heat.plot.fit();
    [this.channels, this.items, this.told, this.gold].forEach((one) => one.fit());
  }
}
