// The frame of the page: routing by the address, error messages, and the form for the API key.

import { Problem, apiKey } from "./api.js";
import { removePlots } from "./charts.js";
import { compare } from "./compare.js";
import { announce, fill, h } from "./dom.js";
import { showConnection } from "./live.js";
import { model } from "./model.js";
import { overview } from "./overview.js";
import { run } from "./run.js";

const VIEWS = { "": overview, models: model, runs: run, compare };
const main = document.getElementById("main");
let controller = new AbortController();

// Open the view that the address names. A view draws itself into `main`, and stops when the signal is
// aborted.
async function openView() {
  controller.abort();
  controller = new AbortController();
  const { signal } = controller;
  const [name, ...rest] = location.hash.replace(/^#\/?/, "").split("/");
  const view = VIEWS[name] ?? overview;
  showConnection("idle");
  hideKeylessLinks(apiKey.get() !== null);
  removePlots();
  fill(main, h("p", { class: "waiting" }, "Loading…"));
  try {
    await view(main, rest.map(decodeURIComponent), signal);
    document.title = pageTitle();
  } catch (error) {
    if (error.name === "AbortError" || signal.aborted) return;
    fill(main, errorNotice(error));
    document.title = pageTitle();
  }
}

// A link sends no key: where a key is required, links to pages that need it are hidden.
function hideKeylessLinks(hidden) {
  document.querySelectorAll("[data-keyless]").forEach((link) => {
    link.hidden = hidden;
  });
}

const pageTitle = () => {
  const heading = main.querySelector("h1")?.textContent;
  return heading && heading !== "Assay" ? `${heading} · Assay` : "Assay";
};

function errorNotice(error) {
  if (!(error instanceof Problem)) console.error(error);
  else if (error.status === 401 || error.status === 403) return keyForm(error.status === 403);
  announce(error.message);
  return h(
    "div",
    { class: "notice", "data-level": "critical" },
    h("h1", {}, error.title ?? "The page failed"),
    h("p", {}, error.message),
    error.hint ? h("p", {}, `Hint: ${error.hint}.`) : null,
    error.requestId
      ? h("p", { class: "small" }, "Request id in the server's log: ", h("code", {}, error.requestId))
      : null,
    h("p", {}, h("button", { class: "button", type: "button", onclick: openView }, "Try again")),
  );
}

function keyForm(rejected) {
  apiKey.remove();
  hideKeylessLinks(true);
  const input = h("input", {
    id: "key",
    type: "password",
    autocomplete: "off",
    required: true,
    "aria-describedby": "key-note",
  });
  const submit = (event) => {
    event.preventDefault();
    apiKey.set(input.value.trim());
    openView();
  };
  queueMicrotask(() => input.focus());
  return h(
    "form",
    { class: "panel key-form", onsubmit: submit },
    h("h1", {}, "This server requires an API key"),
    rejected
      ? h(
          "p",
          { class: "notice", "data-level": "critical", role: "alert" },
          "The server does not accept that key.",
        )
      : null,
    h("label", { for: "key" }, "API key"),
    input,
    h(
      "p",
      { id: "key-note", class: "small quiet" },
      "A key with the scope read. It is kept until this tab is closed, and sent to this server only.",
    ),
    h("p", {}, h("button", { class: "button first", type: "submit" }, "Open")),
  );
}

addEventListener("hashchange", () => {
  main.focus({ preventScroll: true });
  scrollTo(0, 0);
  openView();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", openView);
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
openView();
