// The frame: which room is open, what happens when something fails, and the key where one is wanted.

import { Problem, key } from "./api.js";
import { forgetPlots } from "./charts.js";
import { compare } from "./compare.js";
import { announce, fill, h } from "./dom.js";
import { show } from "./live.js";
import { model } from "./model.js";
import { overview } from "./overview.js";
import { run } from "./run.js";

const ROOMS = { "": overview, models: model, runs: run, compare };
const main = document.getElementById("main");
let leaving = new AbortController();

// A room draws itself into `main`, and stops all that it does when the signal comes.
async function enter() {
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  const [name, ...rest] = location.hash.replace(/^#\/?/, "").split("/");
  const room = ROOMS[name] ?? overview;
  show("idle");
  tellKey();
  forgetPlots();
  fill(main, h("p", { class: "waiting" }, "Reading…"));
  try {
    await room(main, rest.map(decodeURIComponent), signal);
    document.title = titled();
  } catch (error) {
    if (error.name === "AbortError" || signal.aborted) return;
    fill(main, failure(error));
    document.title = titled();
  }
}

// A link sends no key: what wants one is not linked to where there is one.
function tellKey() {
  const wanted = key.get() !== null;
  document.querySelectorAll("[data-keyless]").forEach((link) => {
    link.hidden = wanted;
  });
}

const titled = () => {
  const heading = main.querySelector("h1")?.textContent;
  return heading && heading !== "Assay" ? `${heading} · Assay` : "Assay";
};

function failure(error) {
  if (!(error instanceof Problem)) console.error(error);
  else if (error.status === 401 || error.status === 403) return askForKey(error.status === 403);
  announce(error.message);
  const again = h("button", { class: "button", type: "button", onclick: enter }, "Try again");
  return h(
    "div",
    { class: "notice", "data-level": "critical" },
    h("h1", {}, error.title ?? "The page failed"),
    h("p", {}, error.message),
    error.hint ? h("p", {}, `What helps: ${error.hint}.`) : null,
    error.request ? h("p", { class: "small" }, "In the server's log: ", h("code", {}, error.request)) : null,
    h("p", {}, again),
  );
}

function askForKey(refused) {
  key.forget();
  document.querySelectorAll("[data-keyless]").forEach((link) => {
    link.hidden = true;
  });
  const input = h("input", {
    id: "key",
    type: "password",
    autocomplete: "off",
    required: true,
    "aria-describedby": "key-note",
  });
  const enterKey = (event) => {
    event.preventDefault();
    key.set(input.value.trim());
    enter();
  };
  queueMicrotask(() => input.focus());
  return h(
    "form",
    { class: "panel ask", onsubmit: enterKey },
    h("h1", {}, "This server wants a key"),
    refused
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
      "One of the keys in ASSAY_API_KEYS. It is kept until this tab is closed, and sent to this server only.",
    ),
    h("p", {}, h("button", { class: "button first", type: "submit" }, "Open")),
  );
}

addEventListener("hashchange", () => {
  main.focus({ preventScroll: true });
  scrollTo(0, 0);
  enter();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", enter);
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
enter();
