// Alerts at the latest step: rules that fire and advice of gold, with evidence and limits.

import { announce, fill, h, status } from "./dom.js";
import { asWords, capitalize, joinNames } from "./format.js";
import { valueText } from "./rule_values.js";
import { evidenceList } from "./timeline.js";

export class Alerts {
  constructor() {
    this.element = h("div", { class: "alerts" });
    this.firing = null;
  }

  // `stream` is the health of the selected stream; null where nothing was scored.
  update(health, stream) {
    const firing = (stream?.rules ?? []).filter((rule) => rule.severity !== null);
    const critical = firing.filter((rule) => rule.severity === "critical");
    const warnings = firing.filter((rule) => rule.severity !== "critical");
    const advising = health.gold.filter((source) => source.advice !== null);
    const others = health.streams.filter(
      (other) => other !== stream && ["warn", "critical"].includes(other.status),
    );
    const cards = [...advising.map(adviceCard), ...critical.map(ruleCard), ...warnings.map(ruleCard)];
    fill(this.element, cards.length ? cards : silentNotice(stream), others.map(otherStreamNotice));
    this.announceNew(health.run, firing);
  }

  // Announce the alerts that did not fire at the previous update.
  announceNew(run, firing) {
    const names = firing.map((rule) => `${asWords(rule.rule)}, ${rule.severity}`);
    const added = this.firing === null ? [] : names.filter((name) => !this.firing.includes(name));
    if (added.length) announce(`New alert in ${run}: ${added.join("; ")}`);
    this.firing = names;
  }
}

function silentNotice(stream) {
  if (!stream) return h("p", { class: "notice" }, "There are no scores to evaluate yet.");
  const text =
    stream.status === "waiting"
      ? "These scores are not assessed yet: no rule fires, and too many rules wait for more of them."
      : "No rule fires at the latest step of these scores.";
  return h("p", { class: "notice" }, text);
}

function otherStreamNotice({ model, split, status: level }) {
  const name = [model ?? "the trainer's telemetry", split].filter(Boolean).join(" · ");
  return h("p", { class: "notice", "data-level": level }, `Rules also fire in ${name}: select it above.`);
}

function ruleCard(rule) {
  const about = rule.about.length ? ` (${rule.about.join(", ")})` : "";
  return h(
    "article",
    { class: "notice", "data-level": rule.severity },
    h("h3", {}, status(rule.severity), ` ${capitalize(asWords(rule.rule))}${about}`),
    h(
      "p",
      {},
      `${valueText(rule.rule, rule.value, rule.threshold)} It has fired since step ${rule.since_step}.`,
    ),
    evidenceList(rule.evidence),
    h("p", { class: "small" }, `It cannot distinguish ${rule.limits}.`),
  );
}

function adviceCard({ source, advice }) {
  const level = advice.action === "stop" ? "critical" : "warn";
  const grounds = joinNames(advice.grounds.map(asWords));
  const checkpoint =
    advice.healthy_step === null ? "" : ` The best healthy step before it is ${advice.healthy_step}.`;
  return h(
    "article",
    { class: "notice", "data-level": level },
    h("h3", {}, status(level), ` Gold advises: ${asWords(advice.action)}`),
    h("p", {}, `Source ${source} at step ${advice.step}, because of: ${grounds}.${checkpoint}`),
  );
}
