// What fires at the latest step: rules and gold, each with what it rests on and what it cannot tell.

import { announce, fill, h, status } from "./dom.js";
import { listed, sentence, spoken } from "./format.js";
import { evidence } from "./timeline.js";
import { reading } from "./words.js";

export class Alerts {
  constructor() {
    this.element = h("div", { class: "alerts" });
    this.firing = null;
  }

  // `judged` is the health of the stream that is shown; null where nothing was scored.
  update(health, judged) {
    const firing = (judged?.rules ?? []).filter((one) => one.severity !== null);
    const critical = firing.filter((one) => one.severity === "critical");
    const warnings = firing.filter((one) => one.severity !== "critical");
    const advice = health.gold.filter((one) => one.advice !== null);
    const others = health.streams.filter((one) => one !== judged && one.status !== "ok");
    const cards = [...advice.map(adviceCard), ...critical.map(alertCard), ...warnings.map(alertCard)];
    fill(this.element, cards.length ? cards : quiet(judged), others.map(elsewhere));
    this.tell(health.run, firing);
  }

  // Alerts that were not there at the last look are spoken.
  tell(run, firing) {
    const names = firing.map((one) => `${spoken(one.rule)}, ${one.severity}`);
    const fresh = this.firing === null ? [] : names.filter((one) => !this.firing.includes(one));
    if (fresh.length) announce(`New alert in ${run}: ${fresh.join("; ")}`);
    this.firing = names;
  }
}

function quiet(judged) {
  const words = judged
    ? "No rule fires at the latest step of these scores."
    : "There are no scores to judge yet.";
  return h("p", { class: "notice" }, words);
}

function elsewhere({ model, split, status: level }) {
  const words = `Rules fire in ${model ?? "what the trainer told"} · ${split ?? ""} too: choose it above.`;
  return h("p", { class: "notice", "data-level": level }, words);
}

function alertCard(one) {
  const about = one.about.length ? ` (${one.about.join(", ")})` : "";
  return h(
    "article",
    { class: "notice", "data-level": one.severity },
    h("h3", {}, status(one.severity), ` ${sentence(spoken(one.rule))}${about}`),
    h("p", {}, `${reading(one.rule, one.value, one.threshold)} It fires since step ${one.since_step}.`),
    evidence(one.evidence),
    h("p", { class: "small" }, `It cannot tell ${one.cannot_tell}.`),
  );
}

function adviceCard({ source, advice }) {
  const level = advice.action === "stop" ? "critical" : "warn";
  const grounds = listed(advice.grounds.map(spoken));
  const back =
    advice.healthy_step === null
      ? ""
      : ` The best step at which nothing was wrong is ${advice.healthy_step}.`;
  return h(
    "article",
    { class: "notice", "data-level": level },
    h("h3", {}, status(level), ` Gold advises: ${spoken(advice.action)}`),
    h("p", {}, `By ${source} at step ${advice.step}, on the grounds of ${grounds}.${back}`),
  );
}
