// A run: is its reward still a reward? What fires, how scores spread, and what they rest on.

import { json, runPath } from "./api.js";
import { LineFigure } from "./charts.js";
import { announce, fill, h, section, status } from "./dom.js";
import { ago, count, listed, percent, sentence, span, spoken, when } from "./format.js";
import { GoldRoom } from "./gold.js";
import { HeatMap } from "./heatmap.js";
import { follow, show } from "./live.js";
import { channelTable, groupTables } from "./tables.js";
import { Timeline, evidence } from "./timeline.js";
import { reading } from "./words.js";

// No question about a run is asked sooner than this after the last: judging a long run takes time.
const REST_MS = 3000;

export async function run(main, [name, model, split], signal) {
  const [report, kept] = await Promise.all([json(runPath(name), signal), json("v1/runs", signal)]);
  const streams = report.streams;
  const stream = streams.find((one) => one.model === model && one.split === split) ?? preferred(streams);
  const room = new RunRoom(report, stream);
  await room.read(signal);
  fill(main, room.head(kept.runs.map((one) => one.run)), room.sections());
  room.fit();
  watch(room, signal);
}

const preferred = (streams) => streams.find((one) => one.split === "train") ?? streams[0] ?? null;

export async function questions(name, stream, signal) {
  const query = stream ? `?${new URLSearchParams({ model: stream.model, split: stream.split })}` : "";
  return Promise.all([json(`${runPath(name)}/health`, signal), json(`${runPath(name)}/chart${query}`, signal)]);
}

export const sameStream = (one, stream) => one.model === (stream?.model ?? null) && one.split === (stream?.split ?? null);

async function watch(room, signal) {
  const clock = setInterval(() => room.tellTime(), 5000);
  signal.addEventListener("abort", () => clearInterval(clock), { once: true });
  let last = 0;
  await follow(room.name, room.lastSeen, signal, async () => {
    await new Promise((resolve) => setTimeout(resolve, Math.max(0, last + REST_MS - Date.now())));
    if (signal.aborted) return;
    try {
      await room.read(signal);
    } catch (error) {
      if (error.name !== "AbortError") show("lost");
    }
    last = Date.now();
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
    this.alerts = h("div", { class: "alerts" });
    this.heat = new HeatMap();
    this.heatPlace = h("div");
    this.timeline = new Timeline();
    this.figures = new Map();
    this.channels = h("div", { class: "charts" });
    this.channelNumbers = h("div");
    this.items = h("div", { class: "charts" });
    this.told = h("div", { class: "charts" });
    this.toldSection = section("telemetry", "What the trainer told", "By step, as it was sent to this run's telemetry.", this.told);
    this.gold = new GoldRoom();
    this.groups = h("div");
    this.firing = null;
  }

  async read(signal) {
    const [health, chart] = await questions(this.name, this.stream, signal);
    this.lastSeen = chart.last_seen;
    this.update(health, chart);
  }

  update(health, chart) {
    const drawn = chart.streams.find((one) => sameStream(one, this.stream)) ?? null;
    const judged = health.streams.find((one) => sameStream(one, this.stream)) ?? null;
    fill(this.level, status(health.status));
    this.tellTime();
    this.drawAlerts(health, judged);
    this.gold.update(health.gold);
    if (drawn?.columns.last.length) this.drawStream(drawn, judged);
    else fill(this.heatPlace, h("p", { class: "notice" }, "Nothing was scored for this run yet; its gold is below."));
  }

  drawStream(drawn, judged) {
    const { columns } = drawn;
    const scored = columns.items.reduce((sum, items) => sum + items, 0);
    this.extent.textContent = `${count(scored)} items, step ${columns.first[0]} to ${columns.last.at(-1)}`;
    if (drawn.distribution) {
      if (!this.heat.element.isConnected) fill(this.heatPlace, this.heat.element);
      this.heat.update(columns, drawn.distribution);
    } else {
      fill(this.heatPlace, h("p", { class: "notice" }, "No item of this run has a score: there is nothing to spread. What the trainer told is below."));
    }
    this.timeline.update(drawn, judged?.rules ?? []);
    this.drawChannels(columns, judged?.channels ?? {});
    this.drawItems(columns);
    this.drawTold(columns);
    fill(this.groups, groupTables(drawn.groups));
  }

  figure(place, title, unit, format) {
    if (!this.figures.has(title)) this.figures.set(title, new LineFigure(title, unit, format));
    const figure = this.figures.get(title);
    if (!figure.element.isConnected) place.append(figure.element);
    return figure;
  }

  drawChannels(columns, channels) {
    this.figure(this.channels, "score", "mean by step").update(columns.last, [{ label: "score", stroke: "series-1", values: columns.score.mean }]);
    for (const [name, values] of Object.entries(columns.channels)) {
      this.figure(this.channels, name, "mean by step").update(columns.last, [{ label: name, stroke: "series-1", values }]);
    }
    fill(this.channelNumbers, channelTable(channels));
  }

  drawItems(columns) {
    const share = (part, whole) => part.map((value, place) => (whole[place] ? value / whole[place] : null));
    const { last, items } = columns;
    this.figure(this.items, "Items that failed", "share of items", percent).update(last, [
      { label: "without a score", stroke: "series-2", values: share(columns.nulls, items) },
      { label: "cut", stroke: "series-1", values: share(columns.truncated, items), dash: [4, 3] },
      { label: "nothing to score", stroke: "series-3", values: share(columns.invalid, items), dash: [1, 3] },
    ], null);
    this.figure(this.items, "Response length", "median, characters").update(last, [{ label: "characters", stroke: "series-1", values: columns.characters }]);
    this.figure(this.items, "Groups without variance", "share of groups", percent).update(last, [
      { label: "no variance", stroke: "series-1", values: share(columns.constant_groups, columns.groups) }]);
  }

  drawTold(columns) {
    const told = Object.entries(columns.telemetry);
    this.toldSection.hidden = !told.length;
    for (const [name, values] of told) {
      this.figure(this.told, spoken(name), "as told").update(columns.last, [{ label: spoken(name), stroke: "series-1", values }]);
    }
  }

  drawAlerts(health, judged) {
    const firing = (judged?.rules ?? []).filter((one) => one.severity !== null);
    const advice = health.gold.filter((one) => one.advice !== null);
    fill(this.alerts, advice.map(adviceCard), firing.sort((one) => (one.severity === "critical" ? -1 : 1)).map(alertCard));
    const others = health.streams.filter((one) => one !== judged && one.status !== "ok");
    if (!firing.length && !advice.length) {
      fill(this.alerts, h("p", { class: "notice" }, judged ? "No rule fires at the latest step of these scores." : "There are no scores to judge yet."));
    }
    this.alerts.append(...others.map((one) => h("p", { class: "notice", "data-level": one.status }, `Rules fire in ${one.model ?? "what the trainer told"} · ${one.split ?? ""} too: choose it above.`)));
    const names = firing.map((one) => `${spoken(one.rule)}, ${one.severity}`);
    const fresh = this.firing === null ? [] : names.filter((one) => !this.firing.includes(one));
    if (fresh.length) announce(`New alert in ${this.name}: ${fresh.join("; ")}`);
    this.firing = names;
  }

  tellTime() {
    this.time.textContent = `seen ${ago(this.lastSeen)}`;
    this.time.title = when(this.lastSeen);
  }

  head(names) {
    const others = names.filter((one) => one !== this.name);
    const go = (event) => { location.hash = event.target.value; };
    const streams = this.report.streams.map((one) => h("option", {
      value: `#/runs/${[this.name, one.model, one.split].map(encodeURIComponent).join("/")}`,
      selected: this.stream !== null && sameStream(one, this.stream),
    }, `${one.model} · ${one.split}`));
    return [
      h("p", { class: "trail" }, h("a", { href: "#/" }, "Overview"), " / Run"),
      h("h1", {}, this.name),
      h("p", { class: "facts" }, this.level, this.time, this.extent, h("span", {}, `began ${when(this.report.first_seen)}, lasted ${span(this.report.last_seen - this.report.first_seen)}`)),
      h("div", { class: "controls" },
        streams.length ? h("label", { class: "field" }, "Scores of", h("select", { onchange: go }, streams)) : null,
        others.length ? h("label", { class: "field" }, "Compare with", h("select", { onchange: go },
          h("option", { value: "" }, "another run…"),
          others.map((one) => h("option", { value: `#/compare/${encodeURIComponent(this.name)}/${encodeURIComponent(one)}` }, one)))) : null),
    ];
  }

  sections() {
    return [
      section("alerts", "What fires now", "A rule detects, it does not foresee. Each says what it rests on and what it cannot tell.", this.alerts),
      section("scores", "Score distribution", null, this.heatPlace),
      section("rules", "Rules over time", "From the step at which each rule fired.", this.timeline.element),
      section("channels", "Channels", "The parts of the score, on their own scales.", this.channels, this.channelNumbers),
      section("items", "Items", null, this.items),
      this.toldSection,
      section("gold", "Gold", "How well the reward agrees with a source that pays nothing, on what the policy writes.", this.gold.element),
      section("groups", "Groups", "Of a sample of the latest step. A group is told by a digest of its name; no text is kept.", this.groups),
    ];
  }

  fit() {
    this.heat.plot.fit();
    this.figures.forEach((figure) => figure.plot.fit());
    this.gold.fit();
  }
}

function alertCard(one) {
  const about = one.about.length ? ` (${one.about.join(", ")})` : "";
  return h("article", { class: "notice", "data-level": one.severity },
    h("h3", {}, status(one.severity), " ", `${sentence(spoken(one.rule))}${about}`),
    h("p", {}, `${reading(one.rule, one.value, one.threshold)} It fires since step ${one.since_step}.`),
    evidence(one.evidence),
    h("p", { class: "small" }, `It cannot tell ${one.cannot_tell}.`));
}

function adviceCard(gold) {
  const { advice } = gold;
  const back = advice.healthy_step === null || advice.healthy_step === undefined ? "" : ` The best step at which nothing was wrong is ${advice.healthy_step}.`;
  const level = advice.action === "stop" ? "critical" : "warn";
  return h("article", { class: "notice", "data-level": level },
    h("h3", {}, status(level), " ", `Gold advises: ${spoken(advice.action)}`),
    h("p", {}, `By ${gold.source} at step ${advice.step}, on the grounds of ${listed(advice.grounds.map(spoken))}.${back}`));
}
