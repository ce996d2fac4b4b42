// Numbers and times as text. A missing value is a dash, never a zero.

const DASH = "–";
const wholeNumber = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const dateTime = new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "short" });
const UNITS = [
  ["day", 86400],
  ["h", 3600],
  ["min", 60],
  ["s", 1],
];

export const count = (value) => (value === null || value === undefined ? DASH : wholeNumber.format(value));

// Three significant digits, without an exponent where the number is short enough.
export function number(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return DASH;
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-4) return value.toExponential(2);
  if (size >= 1000) return wholeNumber.format(value);
  return value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3);
}

export function percent(share) {
  if (share === null || share === undefined || !Number.isFinite(share)) return DASH;
  const value = share * 100;
  return `${value !== 0 && Math.abs(value) < 10 ? value.toFixed(1) : value.toFixed(0)} %`;
}

export function duration(seconds) {
  const [unit, size] = UNITS.find(([, length]) => seconds >= length) ?? UNITS[3];
  const times = Math.max(0, Math.floor(seconds / size));
  return `${times} ${unit}${unit === "day" && times !== 1 ? "s" : ""}`;
}

export const ago = (epoch, now = Date.now() / 1000) =>
  now - epoch < 5 ? "just now" : `${duration(now - epoch)} ago`;

export const dateOf = (epoch) => dateTime.format(new Date(epoch * 1000));

// `signal_collapse` as words: `signal collapse`.
export const asWords = (name) => name.replaceAll("_", " ");

export const capitalize = (text) => text.charAt(0).toUpperCase() + text.slice(1);

export const joinNames = (names) => new Intl.ListFormat("en").format(names);

export const milliseconds = (value) => `${number(value)} ms`;
