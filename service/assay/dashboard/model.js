// A model's card: summary, measured quality, limitations, and facts.

import { getJson } from "./api.js";
import { STATE_LEVELS, fill, h, section, status, table } from "./dom.js";
import { asWords, count, number } from "./format.js";

export async function model(main, [id], signal) {
  const card = await getJson(`v1/models/${encodeURIComponent(id)}`, signal);
  fill(
    main,
    h("p", { class: "breadcrumbs" }, h("a", { href: "#/" }, "Overview"), " / Model"),
    h("h1", {}, card.id),
    h(
      "p",
      { class: "facts" },
      status(STATE_LEVELS[card.state], asWords(card.state)),
      h("span", {}, card.title),
      h("span", {}, `family ${card.family}`),
      card.licence ? h("span", {}, card.licence) : null,
    ),
    card.failure ? h("div", { class: "notice", "data-level": "critical" }, h("p", {}, card.failure)) : null,
    card.summary
      ? section("summary", "Summary", null, h("div", { class: "prose" }, h("p", {}, card.summary)))
      : null,
    quality(card),
    card.limitations.length
      ? section(
          "limitations",
          "Limitations",
          null,
          h(
            "ul",
            { class: "prose" },
            card.limitations.map((limitation) => h("li", {}, limitation)),
          ),
        )
      : null,
    facts(card),
  );
}

function quality(card) {
  if (!card.quality.length)
    return section("quality", "Measured quality", "The card states no measured quality.");
  const rows = card.quality.map(({ dataset, metric, value, low, high, n, baselines }) => [
    `${dataset}: ${metric}`,
    number(value),
    `${number(low)} to ${number(high)}`,
    count(n),
    baselines.map((baseline) => `${baseline.name} ${number(baseline.value)}`).join(", ") || "–",
  ]);
  return section(
    "quality",
    "Measured quality",
    "On held-out data, with 95 % intervals.",
    h(
      "div",
      { class: "panel" },
      table(
        "Measured quality and baselines",
        ["Measure", "Value", "95 % interval", "Items", "Baselines"],
        rows,
        [1, 2, 3],
      ),
    ),
  );
}

function facts(card) {
  const parity = card.parity;
  const rows = [
    ["Fingerprint", h("code", {}, card.fingerprint ?? "not loaded")],
    [
      "Self-test",
      parity
        ? `expected ${number(parity.expected)}, got ${number(parity.got)} (${parity.passed ? "within" : "outside"} ${number(parity.tolerance)})`
        : "the card has none",
    ],
    ["Longest input", `${count(card.limits.max_tokens)} tokens`],
    ["Comparable", asWords(card.comparable)],
    ["Resolution", card.resolution ? `differences up to ${number(card.resolution)} are noise` : "none stated"],
    [
      "Reference scores",
      card.reference
        ? `mean ${number(card.reference.mean)}, std ${number(card.reference.std)}, over ${count(card.reference.n)} items`
        : "none stated",
    ],
    ["Training recipe", card.training ? h("code", {}, card.training.recipe) : "not stated"],
  ];
  return section(
    "facts",
    "Facts",
    null,
    h("div", { class: "panel" }, table("Facts of the card", ["Fact", "Value"], rows)),
  );
}
