// The entrance: which models are served and what they do now, and the runs that are kept.

import { here, json, series, text } from "./api.js";
import { fill, h, section, status } from "./dom.js";
import { ago, count, milliseconds, number, sentence, span, when } from "./format.js";
import { show } from "./live.js";
import { Load, severities } from "./load.js";

const LOOK_MS = 5000;
const LEVELS = ["ok", "warn", "critical"];
const STATES = { ready: "ok", loading: "warn", failed: "critical" };
const EXAMPLE = `from assay_client import Client

assay = Client("${here}")
assay.score("code", items, run={"id": "exp-17", "step": step})`;

export async function overview(main, _, signal) {
  const load = new Load();
  const cards = h("div", { class: "cards" });
  const runs = h("div");
  const look = async () => {
    const [models, kept, page] = await Promise.all([
      json("v1/models", signal),
      keptRuns(signal),
      text("metrics", signal),
    ]);
    const found = series(page);
    drawModels(cards, models.models, load.read(found));
    drawRuns(runs, kept, severities(found));
  };
  await look();
  fill(
    main,
    h("h1", {}, "Overview"),
    section("models", "Models", "What is served, and what it does now.", cards),
    section(
      "runs",
      "Runs",
      "Training runs whose rewards were recorded, the one that was seen last first. Health is as it was last looked at, at every news of the last 16 runs.",
      runs,
    ),
  );
  again(look, signal);
}

// A server that keeps no runs still serves models.
async function keptRuns(signal) {
  try {
    return { runs: (await json("v1/runs", signal)).runs };
  } catch (error) {
    if (error.status === 404 || error.status === 429) return { problem: error };
    throw error;
  }
}

function again(look, signal) {
  const timer = setInterval(async () => {
    if (document.hidden) return;
    try {
      await look();
      show("idle");
    } catch (error) {
      if (error.name !== "AbortError") show("lost");
    }
  }, LOOK_MS);
  signal.addEventListener("abort", () => clearInterval(timer), { once: true });
}

function drawModels(place, models, load) {
  const kept = document.activeElement?.closest(".card")?.dataset.name;
  fill(
    place,
    models.map((one) => {
      const now = load(one.id);
      return h(
        "article",
        { class: "panel card", "data-name": one.id },
        h(
          "h3",
          {},
          h("a", { href: `#/models/${encodeURIComponent(one.id)}`, class: "name" }, one.id),
          status(STATES[one.state], one.state),
        ),
        h("p", { class: "small quiet" }, one.failure ?? one.title),
        h(
          "dl",
          { class: "numbers" },
          pair("Items scored", count(now.items)),
          pair("Now", now.rate === null ? "–" : number(now.rate), " items/s"),
          pair("Waiting", count(now.queue), " tokens"),
          pair(
            "Forward pass",
            now.predict === null ? "–" : milliseconds(now.predict),
            now.predict === null ? "" : " mean",
          ),
        ),
      );
    }),
  );
  if (kept) place.querySelector(`[data-name="${CSS.escape(kept)}"] a`)?.focus();
}

const pair = (term, value, unit = "") =>
  h("div", {}, h("dt", {}, term), h("dd", {}, value, h("small", {}, unit)));

function drawRuns(place, kept, worst) {
  if (kept.problem) {
    fill(
      place,
      h(
        "div",
        { class: "notice" },
        h("p", {}, `${sentence(kept.problem.message)}.`),
        kept.problem.hint ? h("p", {}, `What helps: ${kept.problem.hint}.`) : null,
      ),
    );
  } else if (!kept.runs.length) {
    fill(place, empty());
  } else {
    drawTable(place, kept.runs, worst);
  }
}

export function empty() {
  return h(
    "div",
    { class: "panel empty" },
    h("h3", {}, "No run is recorded yet"),
    h("p", { class: "quiet" }, "Name the run and its step where you ask for scores. That is all:"),
    h("pre", { tabindex: "0", "aria-label": "Python example" }, h("code", {}, EXAMPLE)),
    h(
      "p",
      { class: "small quiet" },
      "It appears here within a second of its first request. No text is kept, and recording never holds up a score.",
    ),
  );
}

function drawTable(place, runs, worst) {
  let filter = place.querySelector("input");
  let body = place.querySelector("tbody");
  if (!body) {
    filter = h("input", {
      id: "filter",
      type: "search",
      autocomplete: "off",
      spellcheck: "false",
      oninput: () => sift(place),
    });
    body = h("tbody");
    fill(
      place,
      h(
        "div",
        { class: "panel" },
        h(
          "div",
          { class: "head" },
          h("label", { class: "field", for: "filter" }, "Show runs named", filter),
          h("p", { class: "found", role: "status" }),
        ),
        h(
          "div",
          { class: "scroll" },
          h(
            "table",
            { class: "runs" },
            h("caption", { class: "hidden" }, "Runs that are kept"),
            h(
              "thead",
              {},
              h(
                "tr",
                {},
                ["Run", "Health", "Last seen", "First seen", "Lasted"].map((name, column) =>
                  h("th", { scope: "col", class: column > 2 ? "spare" : null }, name),
                ),
              ),
            ),
            body,
          ),
        ),
      ),
    );
  }
  const focused = document.activeElement?.closest("tr")?.dataset.name;
  fill(
    body,
    runs.map((one) => row(one, worst.get(one.run))),
  );
  if (focused) body.querySelector(`tr[data-name="${CSS.escape(focused)}"] a`)?.focus();
  sift(place);
}

function row(one, severity) {
  const told =
    severity === undefined
      ? h("span", { class: "quiet small" }, "not looked at yet")
      : status(LEVELS[severity]);
  return h(
    "tr",
    { "data-name": one.run },
    h("th", { scope: "row" }, h("a", { href: `#/runs/${encodeURIComponent(one.run)}` }, one.run)),
    h("td", {}, told),
    h("td", { title: when(one.last_seen) }, ago(one.last_seen)),
    h("td", { class: "spare" }, when(one.first_seen)),
    h("td", { class: "spare" }, span(one.last_seen - one.first_seen)),
  );
}

function sift(place) {
  const wanted = place.querySelector("input").value.trim().toLowerCase();
  const rows = [...place.querySelectorAll("tbody tr")];
  rows.forEach((one) => {
    one.hidden = !one.dataset.name.toLowerCase().includes(wanted);
  });
  const shown = rows.filter((one) => !one.hidden).length;
  const told = `${shown} of ${rows.length} runs`;
  const found = place.querySelector(".found");
  if (found.textContent !== told) found.textContent = told;
}
