// What the models do now: counters of /metrics, and how much they rose since the last look.

const GAP_SECONDS = 1;

export class Load {
  constructor() {
    this.before = null;
  }

  // By model: items in all and a second, seconds of a forward pass, tokens waiting.
  read(found) {
    const now = performance.now() / 1000;
    const sums = (name, label = "model") => {
      const by = new Map();
      for (const { labels, value } of found.get(name) ?? [])
        by.set(labels[label], (by.get(labels[label]) ?? 0) + value);
      return by;
    };
    const items = sums("assay_items_total");
    const queue = sums("assay_queue_tokens");
    const predicts = (suffix) =>
      new Map(
        (found.get(`assay_phase_seconds_${suffix}`) ?? [])
          .filter(({ labels }) => labels.phase === "predict")
          .map(({ labels, value }) => [labels.model, value]),
      );
    const spent = predicts("sum");
    const times = predicts("count");
    const { before } = this;
    const load = (model) => ({
      items: items.get(model) ?? 0,
      queue: queue.get(model) ?? 0,
      rate:
        before && now - before.now >= GAP_SECONDS
          ? Math.max(0, (items.get(model) ?? 0) - (before.items.get(model) ?? 0)) / (now - before.now)
          : null,
      predict: times.get(model) ? (1000 * spent.get(model)) / times.get(model) : null,
    });
    this.before = { now, items };
    return load;
  }
}

// By run, how grave its state was when it was last looked at, gold included.
export function severities(found) {
  return new Map(
    (found.get("assay_run_status") ?? []).map(({ labels, value }) => [labels.run, value]),
  );
}
