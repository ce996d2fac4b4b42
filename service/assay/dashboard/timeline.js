// Episodes of rules: a track for each rule that fired, and the evidence of each episode.

import { fill, h, status, tableOf } from "./dom.js";
import { asWords, capitalize, number } from "./format.js";
import { valueText } from "./rule_values.js";

const COLUMNS = ["Rule", "Severity", "Since step", "Critical at", "Until step", "Value", "Threshold"];

export class Timeline {
  constructor() {
    this.tracks = h("div", { class: "timeline" });
    this.list = h("div", { class: "episodes" });
    this.older = h("p", { class: "small quiet" });
    this.states = h("div");
    this.numbers = tableOf("When rules fired");
    const drawn = [this.tracks, this.list, this.older, this.numbers.element, this.states];
    this.element = h("div", { class: "panel" }, drawn);
  }

  // `rules` are the rule states of the stream's health at the latest step.
  update(chart, rules) {
    const { episodes } = chart;
    const names = [...new Set(episodes.map((episode) => episode.rule))];
    this.drawList(episodes);
    this.drawTracks(episodes, names, chart.columns);
    this.older.textContent = chart.left_off ? `${chart.left_off} older episodes are not shown.` : "";
    fill(this.states, stateList(rules));
    this.list.hidden = !names.length;
    this.numbers.element.hidden = !names.length;
    this.numbers.update(() => [COLUMNS, episodes.map(tableRow), [2, 3, 4, 5, 6]]);
  }

  drawList(episodes) {
    const opened = [...this.list.querySelectorAll("details[open]")];
    const open = new Set(opened.map((details) => details.dataset.name));
    const latestFirst = [...episodes].reverse();
    fill(
      this.list,
      latestFirst.map((episode) => episodeDetails(episode, open.has(nameOf(episode)))),
    );
  }

  drawTracks(episodes, names, { first, last }) {
    const range = [first[0] ?? 0, last.at(-1) ?? 1];
    const ofRule = (name) => episodes.filter((episode) => episode.rule === name);
    const axis = h(
      "div",
      { class: "axis", "aria-hidden": "true" },
      h("span", {}, `step ${range[0]}`),
      h("span", {}, `step ${range[1]}`),
    );
    const tracks = names.map((name) => this.track(name, ofRule(name), range));
    fill(this.tracks, tracks, names.length ? axis : null);
  }

  track(name, episodes, [from, to]) {
    const position = (step) => Math.min(100, Math.max(0, (100 * (step - from)) / Math.max(1, to - from)));
    const bars = episodes.map((episode) => {
      const end = episode.until_step ?? to;
      const bar = h("button", {
        type: "button",
        "data-level": episode.severity,
        title: episodeText(episode),
        "aria-label": `Show: ${episodeText(episode)}`,
        onclick: () => this.open(nameOf(episode)),
      });
      const width = Math.max(0, position(end) - position(episode.since_step));
      bar.style.left = `min(${position(episode.since_step)}%, calc(100% - 0.75rem))`;
      bar.style.width = `${width}%`;
      if (episode.critical_step !== null) {
        const steps = Math.max(1, end - episode.since_step);
        const share = (episode.critical_step - episode.since_step) / steps;
        bar.style.setProperty("--critical-from", `${Math.min(100, share * 100)}%`);
      }
      return bar;
    });
    return [h("div", { class: "rule" }, capitalize(asWords(name))), h("div", { class: "track" }, bars)];
  }

  open(name) {
    const details = [...this.list.children].find((child) => child.dataset.name === name);
    details.open = true;
    details.querySelector("summary").focus();
  }
}

const nameOf = (episode) => `${episode.rule}-${episode.since_step}`;

// Rules that fire first, then those that are quiet, that wait, and that were not fed.
const STATES = ["fired", "quiet", "waiting", "not_fed"];

function stateList(rules) {
  const inOrder = STATES.flatMap((state) => rules.filter((rule) => rule.state === state));
  return h(
    "ul",
    { class: "states", "aria-label": "Rules at the latest step" },
    inOrder.map((rule) =>
      h("li", {}, capitalize(asWords(rule.rule)), status(rule.severity ?? rule.state, stateText(rule))),
    ),
  );
}

// `waiting (160/256 items)`.
function stateText({ state, severity, progress: { seen, needed, unit } }) {
  if (state === "waiting") return `waiting (${seen}/${needed} ${unit})`;
  return severity ?? asWords(state);
}

const tableRow = (episode) => [
  asWords(episode.rule),
  episode.severity,
  String(episode.since_step),
  episode.critical_step === null ? "–" : String(episode.critical_step),
  episode.until_step === null ? "still fires" : String(episode.until_step),
  number(episode.value),
  number(episode.threshold),
];

function episodeText(episode) {
  const critical =
    episode.critical_step === null
      ? ""
      : episode.critical_step === episode.since_step
        ? ", critical at once"
        : `, critical from step ${episode.critical_step}`;
  const end = episode.until_step === null ? "and still fires" : `until step ${episode.until_step}`;
  return `${capitalize(asWords(episode.rule))} fired at step ${episode.since_step}${critical} ${end}`;
}

function episodeDetails(episode, open) {
  const about = episode.about.length ? ` about ${episode.about.join(", ")}` : "";
  const value = valueText(episode.rule, episode.value, episode.threshold);
  return h(
    "details",
    { "data-name": nameOf(episode), open },
    h("summary", {}, status(episode.severity), h("span", {}, episodeText(episode))),
    h(
      "div",
      { class: "body" },
      h("p", {}, `When it began${about}: ${value}`),
      evidenceList(episode.evidence),
      h("p", { class: "quiet" }, `It cannot distinguish ${episode.limits}.`),
    ),
  );
}

export function evidenceList(evidence) {
  const pairs = Object.entries(evidence);
  if (!pairs.length) return null;
  return h(
    "dl",
    { class: "evidence" },
    pairs.map(([name, value]) => h("div", {}, h("dt", {}, asWords(name)), h("dd", {}, number(value)))),
  );
}
