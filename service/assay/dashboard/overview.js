// The overview: the served models with their load, and the recorded runs.

import { getJson, getText, parseMetrics, serverUrl } from "./api.js";
import { STATE_LEVELS, fill, h, section, status } from "./dom.js";
import { ago, asWords, capitalize, count, dateOf, duration, milliseconds, number } from "./format.js";
import { showConnection } from "./live.js";
import { Load, severities } from "./load.js";

const REFRESH_MS = 5000;
const LEVELS = { "-1": "waiting", 0: "ok", 1: "warn", 2: "critical" };
const EXAMPLE = `from assay_client import Client

assay = Client("${serverUrl}")
assay.score("code", items, run={"id": "exp-17", "step": step})`;

export async function overview(main, _, signal) {
  const load = new Load();
  const cards = h("div", { class: "cards" });
  const runs = h("div");
  const refresh = async () => {
    const [models, recorded, page] = await Promise.all([
      getJson("v1/models", signal),
      recordedRuns(signal),
      getText("metrics", signal),
    ]);
    const metrics = parseMetrics(page);
    drawModels(cards, models.models, load.read(metrics));
    drawRuns(runs, recorded, severities(metrics));
  };
  await refresh();
  fill(
    main,
    h("h1", {}, "Overview"),
    section("models", "Models", "The served models and their load.", cards),
    section(
      "runs",
      "Runs",
      "Training runs whose rewards were recorded, most recently seen first. Health is that of the latest evaluation; it is shown for the 16 runs evaluated last.",
      runs,
    ),
  );
  refreshRegularly(refresh, signal);
}

// A server that keeps no runs still serves models.
async function recordedRuns(signal) {
  try {
    return { runs: (await getJson("v1/runs", signal)).runs };
  } catch (error) {
    if (error.status === 404 || error.status === 429) return { problem: error };
    throw error;
  }
}

function refreshRegularly(refresh, signal) {
  const timer = setInterval(async () => {
    if (document.hidden) return;
    try {
      await refresh();
      showConnection("idle");
    } catch (error) {
      if (error.name !== "AbortError") showConnection("lost");
    }
  }, REFRESH_MS);
  signal.addEventListener("abort", () => clearInterval(timer), { once: true });
}

function drawModels(container, models, loadOf) {
  const focused = document.activeElement?.closest(".card")?.dataset.name;
  fill(
    container,
    models.map((model) => modelCard(model, loadOf(model.id))),
  );
  if (focused) container.querySelector(`[data-name="${CSS.escape(focused)}"] a`)?.focus();
}

function modelCard(model, load) {
  const hasPredicted = load.predict !== null;
  return h(
    "article",
    { class: "panel card", "data-name": model.id },
    h(
      "h3",
      {},
      h("a", { href: `#/models/${encodeURIComponent(model.id)}`, class: "name" }, model.id),
      status(STATE_LEVELS[model.state], asWords(model.state)),
    ),
    h("p", { class: "small quiet" }, model.failure ?? model.title),
    h(
      "dl",
      { class: "numbers" },
      term("Items scored", count(load.items)),
      term("Now", load.rate === null ? "–" : number(load.rate), " items/s"),
      term("Waiting", count(load.queue), " tokens"),
      term("Forward pass", hasPredicted ? milliseconds(load.predict) : "–", hasPredicted ? " mean" : ""),
    ),
  );
}

const term = (name, value, unit = "") =>
  h("div", {}, h("dt", {}, name), h("dd", {}, value, h("small", {}, unit)));

function drawRuns(container, recorded, severityByRun) {
  if (recorded.problem) {
    const { message, hint } = recorded.problem;
    fill(
      container,
      h(
        "div",
        { class: "notice" },
        h("p", {}, `${capitalize(message)}.`),
        hint ? h("p", {}, `Hint: ${hint}.`) : null,
      ),
    );
  } else if (!recorded.runs.length) {
    fill(container, emptyPanel());
  } else {
    drawTable(container, recorded.runs, severityByRun);
  }
}

function emptyPanel() {
  return h(
    "div",
    { class: "panel empty" },
    h("h3", {}, "No run is recorded yet"),
    h("p", { class: "quiet" }, "Name the run and its step in your scoring requests:"),
    h("pre", { tabindex: "0", "aria-label": "Python example" }, h("code", {}, EXAMPLE)),
    h(
      "p",
      { class: "small quiet" },
      "It appears here within a second of its first request. No text is kept, and recording does not delay scores.",
    ),
  );
}

function drawTable(container, runs, severityByRun) {
  if (!container.querySelector("tbody")) fill(container, runPanel(container));
  const body = container.querySelector("tbody");
  const focused = document.activeElement?.closest("tr")?.dataset.name;
  fill(
    body,
    runs.map((run) => runRow(run, severityByRun.get(run.run))),
  );
  if (focused) body.querySelector(`tr[data-name="${CSS.escape(focused)}"] a`)?.focus();
  applyFilter(container);
}

function runPanel(container) {
  const filter = h("input", {
    id: "filter",
    type: "search",
    autocomplete: "off",
    spellcheck: "false",
    oninput: () => applyFilter(container),
  });
  const columns = ["Run", "Health", "Last seen", "First seen", "Duration"].map((name, index) =>
    h("th", { scope: "col", class: index > 2 ? "optional" : null }, name),
  );
  return h(
    "div",
    { class: "panel" },
    h(
      "div",
      { class: "head" },
      h("label", { class: "field", for: "filter" }, "Show runs named", filter),
      h("p", { class: "match-count", role: "status" }),
    ),
    h(
      "div",
      { class: "scroll" },
      h(
        "table",
        { class: "runs" },
        h("caption", { class: "hidden" }, "Recorded runs"),
        h("thead", {}, h("tr", {}, columns)),
        h("tbody"),
      ),
    ),
  );
}

function runRow(run, severity) {
  const health =
    severity === undefined
      ? h("span", { class: "quiet small" }, "not evaluated yet")
      : status(LEVELS[severity]);
  return h(
    "tr",
    { "data-name": run.run },
    h(
      "th",
      { scope: "row" },
      h("a", { href: `#/runs/${encodeURIComponent(run.run)}` }, run.run),
      run.note ? h("div", { class: "note small quiet" }, run.note) : null,
    ),
    h("td", {}, health),
    h("td", { title: dateOf(run.last_seen) }, ago(run.last_seen)),
    h("td", { class: "optional" }, dateOf(run.first_seen)),
    h("td", { class: "optional" }, duration(run.last_seen - run.first_seen)),
  );
}

function applyFilter(container) {
  const wanted = container.querySelector("input").value.trim().toLowerCase();
  const rows = [...container.querySelectorAll("tbody tr")];
  rows.forEach((row) => {
    row.hidden = !row.dataset.name.toLowerCase().includes(wanted);
  });
  const shown = rows.filter((row) => !row.hidden).length;
  const text = `${shown} of ${rows.length} runs`;
  const label = container.querySelector(".match-count");
  // Screen readers speak every change of the text, so set it only where it differs.
  if (label.textContent !== text) label.textContent = text;
}
