// Live updates of a run: by server-sent events, or by polling where those do not arrive.

import { events, getJson, runPath } from "./api.js";

const POLL_MS = 5000;
const POLLS_BEFORE_EVENTS = 6;
const LABELS = {
  live: "Live",
  polling: "Polling every 5 s",
  lost: "No response, retrying",
  idle: "",
};

export function showConnection(state) {
  const label = document.getElementById("live");
  if (label.dataset.state === state) return;
  label.dataset.state = state;
  label.textContent = LABELS[state];
}

export const pause = (milliseconds, signal) =>
  new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener(
      "abort",
      () => {
        clearTimeout(timer);
        resolve();
      },
      { once: true },
    );
  });

// Call `onUpdate` whenever something was recorded after `lastSeen`, until the signal is aborted. No
// request is sent while the tab is hidden.
export async function subscribe(run, lastSeen, signal, onUpdate) {
  const path = `${runPath(run)}/events`;
  const handle = async (update) => {
    if (update.last_seen === lastSeen) return;
    lastSeen = update.last_seen;
    await onUpdate();
  };
  while (!signal.aborted) {
    if (document.hidden) await untilVisible(signal);
    const outcome = await readEvents(path, signal, handle);
    if (signal.aborted) break;
    if (outcome === "ended") await pause(POLL_MS, signal);
    else await poll(path, signal, handle);
  }
}

async function readEvents(path, signal, handle) {
  const controller = new AbortController();
  const abort = () => controller.abort();
  const abortWhenHidden = () => {
    if (document.hidden) abort();
  };
  signal.addEventListener("abort", abort, { once: true });
  document.addEventListener("visibilitychange", abortWhenHidden);
  try {
    for await (const { event, data } of events(path, controller.signal)) {
      showConnection("live");
      if (event === "end") return "ended";
      await handle(data);
    }
    return "ended";
  } catch (error) {
    if (error.name !== "AbortError") return "failed";
    return "ended";
  } finally {
    document.removeEventListener("visibilitychange", abortWhenHidden);
  }
}

// Poll for half a minute; then the events are tried again.
async function poll(path, signal, handle) {
  for (let times = 0; times < POLLS_BEFORE_EVENTS && !signal.aborted && !document.hidden; times += 1) {
    try {
      await handle(await getJson(path, signal));
      showConnection("polling");
    } catch (error) {
      if (error.name === "AbortError") return;
      showConnection("lost");
    }
    await pause(POLL_MS, signal);
  }
}

function untilVisible(signal) {
  return new Promise((resolve) => {
    const check = () => {
      if (!document.hidden || signal.aborted) {
        document.removeEventListener("visibilitychange", check);
        resolve();
      }
    };
    document.addEventListener("visibilitychange", check);
    signal.addEventListener("abort", check, { once: true });
  });
}
