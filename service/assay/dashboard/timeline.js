// When each rule fired: a track for each rule that ever did, and what each time rested on.

import { fill, h, status, tableOf } from "./dom.js";
import { number, sentence, spoken } from "./format.js";
import { reading } from "./words.js";

const COLUMNS = ["Rule", "Severity", "Since step", "Critical at", "Until step", "Value", "Threshold"];

export class Timeline {
  constructor() {
    this.tracks = h("div", { class: "timeline" });
    this.list = h("div", { class: "episodes" });
    this.silent = h("p", { class: "small quiet" });
    this.numbers = tableOf("When rules fired");
    this.element = h("div", { class: "panel" }, this.tracks, this.list, this.silent, this.numbers.element);
  }

  // `rules` are the states of the health; they name those that are silent.
  update(chart, rules) {
    const open = new Set([...this.list.querySelectorAll("details[open]")].map((one) => one.dataset.name));
    const { first, last } = chart.columns;
    const range = [first[0] ?? 0, last.at(-1) ?? 1];
    const names = [...new Set(chart.episodes.map((one) => one.rule))];
    fill(
      this.list,
      [...chart.episodes].reverse().map((one) => episodeDetails(one, open.has(nameOf(one)))),
    );
    fill(
      this.tracks,
      names.map((name) =>
        this.track(
          name,
          chart.episodes.filter((one) => one.rule === name),
          range,
        ),
      ),
      names.length
        ? h(
            "div",
            { class: "axis", "aria-hidden": "true" },
            h("span", {}, `step ${range[0]}`),
            h("span", {}, `step ${range[1]}`),
          )
        : null,
    );
    const silent = rules.map((one) => one.rule).filter((rule) => !names.includes(rule));
    const left = chart.left_off ? ` ${chart.left_off} older times are left off.` : "";
    this.silent.textContent = names.length
      ? `${silent.length} more rules were silent throughout: ${silent.map(spoken).join(", ")}.${left}`
      : `None of the ${silent.length} rules has fired. Silence means that nothing passed a threshold, or that too little was seen to judge: ${silent.map(spoken).join(", ")}.`;
    this.list.hidden = !names.length;
    this.numbers.element.hidden = !names.length;
    this.numbers.update(() => [
      COLUMNS,
      chart.episodes.map((one) => [
        spoken(one.rule),
        one.severity,
        String(one.since_step),
        one.critical_step === null ? "–" : String(one.critical_step),
        one.until_step === null ? "still fires" : String(one.until_step),
        number(one.value),
        number(one.threshold),
      ]),
      [2, 3, 4, 5, 6],
    ]);
  }

  track(name, episodes, [from, to]) {
    const place = (step) => Math.min(100, Math.max(0, (100 * (step - from)) / Math.max(1, to - from)));
    const bars = episodes.map((one) => {
      const end = one.until_step ?? to;
      const bar = h("button", {
        type: "button",
        "data-level": one.severity,
        title: told(one),
        "aria-label": `Show: ${told(one)}`,
        onclick: () => this.show(nameOf(one)),
      });
      const width = Math.max(0, place(end) - place(one.since_step));
      bar.style.left = `min(${place(one.since_step)}%, calc(100% - 0.75rem))`;
      bar.style.width = `${width}%`;
      if (one.critical_step !== null) {
        const turn = (one.critical_step - one.since_step) / Math.max(1, end - one.since_step);
        bar.style.setProperty("--turn", `${Math.min(100, turn * 100)}%`);
      }
      return bar;
    });
    return [h("div", { class: "rule" }, sentence(spoken(name))), h("div", { class: "track" }, bars)];
  }

  show(name) {
    const details = [...this.list.children].find((one) => one.dataset.name === name);
    details.open = true;
    details.querySelector("summary").focus();
  }
}

const nameOf = (one) => `${one.rule}-${one.since_step}`;

export function told(one) {
  const critical =
    one.critical_step === null
      ? ""
      : one.critical_step === one.since_step
        ? ", critical at once"
        : `, critical from step ${one.critical_step}`;
  const end = one.until_step === null ? "and still does" : `until step ${one.until_step}`;
  return `${sentence(spoken(one.rule))} fired at step ${one.since_step}${critical} ${end}`;
}

function episodeDetails(one, open) {
  const about = one.about.length ? ` about ${one.about.join(", ")}` : "";
  return h(
    "details",
    { "data-name": nameOf(one), open },
    h("summary", {}, status(one.severity), h("span", {}, told(one))),
    h(
      "div",
      { class: "body" },
      h("p", {}, `When it began${about}: ${reading(one.rule, one.value, one.threshold)}`),
      evidence(one.evidence),
      h("p", { class: "quiet" }, `It cannot tell ${one.cannot_tell}.`),
    ),
  );
}

export function evidence(numbers) {
  const pairs = Object.entries(numbers);
  if (!pairs.length) return null;
  return h(
    "dl",
    { class: "evidence" },
    pairs.map(([name, value]) => h("div", {}, h("dt", {}, spoken(name)), h("dd", {}, number(value)))),
  );
}
