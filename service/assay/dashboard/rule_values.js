// The meaning and the unit of each rule's value. A rule that is not listed shows a plain number.

import { number, percent } from "./format.js";

const share = (meaning) => ({ meaning, format: percent });
const plain = (meaning) => ({ meaning, format: number });

const VALUES = {
  constant_score: plain("is the range of the scores"),
  group_degeneracy: share("of the groups score the same on every channel"),
  dead_channel: plain("is the range of the channel's values"),
  signal_collapse: share("of the verdicts are the same"),
  strong_support: share("of the claims are supported"),
  saturation: share("of the early spread of the scores is left"),
  outcome_drawdown: share("of the outcome's peak is lost"),
  proxy_divergence: share("of the outcome's peak is lost, while the total is near its own peak"),
  channel_lock: plain("is the correlation of the two channels"),
  behaviour_lock: share("of the responses make the same number of calls"),
  length_collapse: share("of the median length is lost"),
  length_score: plain("is the correlation of length and score"),
  script_drift: share("of the responses are in other scripts than at the start"),
  null_share: share("of the items have no score"),
  truncated_share: share("of the items were truncated"),
  empty_share: share("of the responses are empty"),
  invalid_share: share("more of the responses than early have nothing to score"),
  policy_entropy: share("of the early entropy is left"),
  token_collapse: share("of the early entropy is left"),
  answer_collapse: share("of the answers to a prompt are the same"),
  kl_jump: plain("nats is the KL divergence"),
  clipped_share: share("of the responses reach the trainer's limit of length"),
  calls_without_search: share("of the responses make no call"),
};

// Rules that also fire at a level of its own, which does not depend on how the run began.
const LEVELS = {
  invalid_share: { threshold: 0.9, ...share("of the responses have nothing to score") },
  policy_entropy: { threshold: 0.01, ...plain("nats of entropy are left") },
};

export function valueText(rule, value, threshold) {
  const isLevel = LEVELS[rule]?.threshold === threshold;
  const { meaning, format } = (isLevel ? LEVELS : VALUES)[rule] ?? plain("was measured");
  return `${format(value)} ${meaning}; the threshold is ${format(threshold)}.`;
}
