// The load of each model: counters of /metrics, and their rates since the previous reading.

const MIN_INTERVAL_SECONDS = 1;

export class Load {
  constructor() {
    this.before = null;
  }

  // Take in a reading of the metrics. Returns a function that gives a model's load: items in all and
  // per second, milliseconds of a forward pass, tokens in the queue.
  read(metrics) {
    const now = performance.now() / 1000;
    const sumByModel = (name) => {
      const sums = new Map();
      for (const { labels, value } of metrics.get(name) ?? [])
        sums.set(labels.model, (sums.get(labels.model) ?? 0) + value);
      return sums;
    };
    const items = sumByModel("assay_items_total");
    const queue = sumByModel("assay_queue_tokens");
    const predictPhase = (suffix) =>
      new Map(
        (metrics.get(`assay_phase_seconds_${suffix}`) ?? [])
          .filter(({ labels }) => labels.phase === "predict")
          .map(({ labels, value }) => [labels.model, value]),
      );
    const seconds = predictPhase("sum");
    const passes = predictPhase("count");
    const { before } = this;
    const loadOf = (model) => ({
      items: items.get(model) ?? 0,
      queue: queue.get(model) ?? 0,
      rate:
        before && now - before.now >= MIN_INTERVAL_SECONDS
          ? Math.max(0, (items.get(model) ?? 0) - (before.items.get(model) ?? 0)) / (now - before.now)
          : null,
      predict: passes.get(model) ? (1000 * seconds.get(model)) / passes.get(model) : null,
    });
    this.before = { now, items };
    return loadOf;
  }
}

// By run, the status of its latest evaluation, gold included: -1 waiting, 0 ok, 1 warn, 2 critical.
export function severities(metrics) {
  return new Map(
    (metrics.get("assay_run_status") ?? []).map(({ labels, value }) => [labels.run, value]),
  );
}
