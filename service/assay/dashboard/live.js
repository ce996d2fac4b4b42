// Following a run: by the server's events, and where those do not come, by asking from time to time.

import { events, json, runPath } from "./api.js";

const POLL_MS = 5000;
const WORDS = {
  live: "Live",
  polling: "Asking every 5 s",
  lost: "No answer, trying again",
  idle: "",
};

export function show(state) {
  const place = document.getElementById("live");
  if (place.dataset.state === state) return;
  place.dataset.state = state;
  place.textContent = WORDS[state];
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

// Calls `onNews` whenever something was recorded after `lastSeen`, until the signal; nothing is asked
// while nobody looks.
export async function follow(run, lastSeen, signal, onNews) {
  const path = `${runPath(run)}/events`;
  const hear = async (news) => {
    if (news.last_seen === lastSeen) return;
    lastSeen = news.last_seen;
    await onNews();
  };
  while (!signal.aborted) {
    if (document.hidden) await untilVisible(signal);
    const state = await listen(path, signal, hear);
    if (signal.aborted) break;
    if (state === "ended") await pause(POLL_MS, signal);
    else await poll(path, signal, hear);
  }
}

async function listen(path, signal, hear) {
  const leaving = new AbortController();
  const leave = () => leaving.abort();
  const hidden = () => {
    if (document.hidden) leave();
  };
  signal.addEventListener("abort", leave, { once: true });
  document.addEventListener("visibilitychange", hidden);
  try {
    for await (const { event, data } of events(path, leaving.signal)) {
      show("live");
      if (event === "end") return "ended";
      await hear(data);
    }
    return "ended";
  } catch (error) {
    if (error.name !== "AbortError") return "failed";
    return "ended";
  } finally {
    document.removeEventListener("visibilitychange", hidden);
  }
}

// Half a minute of asking, then the events are tried again.
async function poll(path, signal, hear) {
  for (let times = 0; times < 6 && !signal.aborted && !document.hidden; times += 1) {
    try {
      await hear(await json(path, signal));
      show("polling");
    } catch (error) {
      if (error.name === "AbortError") return;
      show("lost");
    }
    await pause(POLL_MS, signal);
  }
}

function untilVisible(signal) {
  return new Promise((resolve) => {
    const look = () => {
      if (!document.hidden || signal.aborted) {
        document.removeEventListener("visibilitychange", look);
        resolve();
      }
    };
    document.addEventListener("visibilitychange", look);
    signal.addEventListener("abort", look, { once: true });
  });
}
