// Requests to the server. The API key is kept for this tab only, and is sent to this server only.

const KEY = "assay-key";

// The server's address, also behind a proxy that serves it below a path.
export const serverUrl = new URL(".", location.href).href.replace(/\/$/, "");

// A response that is an error, or no response at all (status 0).
export class Problem extends Error {
  constructor(status, body) {
    super(body.detail ?? body.title ?? `The server answered ${status}.`);
    this.status = status;
    this.title = body.title ?? "Something went wrong";
    this.hint = body.hint ?? null;
    this.code = body.code ?? null;
    this.requestId = body.request_id ?? null;
  }
}

export const apiKey = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
  remove: () => sessionStorage.removeItem(KEY),
};

export const runPath = (run) => `v1/runs/${run.split("/").map(encodeURIComponent).join("/")}`;

async function request(path, accept, signal) {
  const headers = { Accept: accept };
  if (apiKey.get()) headers.Authorization = `Bearer ${apiKey.get()}`;
  let response;
  try {
    response = await fetch(path, { headers, signal, cache: "no-store", credentials: "omit" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, {
      title: "The server cannot be reached",
      detail: "It did not respond. It may have stopped, or the connection is lost.",
    });
  }
  if (!response.ok) throw new Problem(response.status, await response.json().catch(() => ({})));
  return response;
}

export const getJson = async (path, signal) => (await request(path, "application/json", signal)).json();

export const getText = async (path, signal) => (await request(path, "text/plain", signal)).text();

// The server-sent events of a path, one after the other: `{ event, data }`. The browser's own
// EventSource cannot send a key.
export async function* events(path, signal) {
  const response = await request(path, "text/event-stream", signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
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

// Parse /metrics: each series of Assay by name, with its labels and values.
export function parseMetrics(page) {
  const byName = new Map();
  for (const line of page.split("\n")) {
    const match = /^(assay_\w+)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (!match) continue;
    const labels = {};
    for (const [, name, value] of (match[2] ?? "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) {
      labels[name] = value.replace(/\\(.)/g, (_, letter) => (letter === "n" ? "\n" : letter));
    }
    if (!byName.has(match[1])) byName.set(match[1], []);
    byName.get(match[1]).push({ labels, value: Number(match[3]) });
  }
  return byName;
}
