// Asking the server. The key is kept for this tab only, and leaves it only towards the server.

const KEY = "assay-key";

// The server's address, also behind a proxy that serves it below a path.
export const here = new URL(".", location.href).href.replace(/\/$/, "");

export class Problem extends Error {
  constructor(status, body) {
    super(body.detail ?? body.title ?? `The server answered ${status}.`);
    this.status = status;
    this.title = body.title ?? "Something went wrong";
    this.hint = body.hint ?? null;
    this.code = body.code ?? null;
    this.request = body.request_id ?? null;
  }
}

export const key = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.removeItem(KEY),
};

export const runPath = (run) => `v1/runs/${run.split("/").map(encodeURIComponent).join("/")}`;

async function ask(path, accept, signal) {
  const headers = { Accept: accept };
  if (key.get()) headers.Authorization = `Bearer ${key.get()}`;
  let answer;
  try {
    answer = await fetch(path, { headers, signal, cache: "no-store", credentials: "omit" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, {
      title: "The server cannot be reached",
      detail: "It did not answer. It may have stopped, or the connection is gone.",
    });
  }
  if (!answer.ok) throw new Problem(answer.status, await answer.json().catch(() => ({})));
  return answer;
}

export const json = async (path, signal) => (await ask(path, "application/json", signal)).json();

export const text = async (path, signal) => (await ask(path, "text/plain", signal)).text();

// The events of a stream, one after the other: `{ event, data }`. A browser's own EventSource
// cannot send a key.
export async function* events(path, signal) {
  const answer = await ask(path, "text/event-stream", signal);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let pending = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    pending += value;
    const blocks = pending.split("\n\n");
    pending = blocks.pop();
    for (const block of blocks) {
      const fields = Object.fromEntries(
        block
          .split("\n")
          .filter((line) => !line.startsWith(":"))
          .map((line) => line.split(/: ?(.*)/s)),
      );
      if (fields.data) yield { event: fields.event, data: JSON.parse(fields.data) };
    }
  }
}

// The series of /metrics that the page shows: by name, each with its labels and its value.
export function series(page) {
  const found = new Map();
  for (const line of page.split("\n")) {
    const match = /^(assay_\w+)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (!match) continue;
    const labels = {};
    for (const [, name, value] of (match[2] ?? "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) {
      labels[name] = value.replace(/\\(.)/g, (_, letter) => (letter === "n" ? "\n" : letter));
    }
    if (!found.has(match[1])) found.set(match[1], []);
    found.get(match[1]).push({ labels, value: Number(match[3]) });
  }
  return found;
}
