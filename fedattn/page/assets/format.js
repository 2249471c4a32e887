/** Numbers as people read them. */

const BYTE_UNITS = ["B", "kB", "MB", "GB", "TB"];

/** Such as 18.6 kB; powers of 1000. */
export function bytes(count) {
  let value = count;
  let unit = 0;
  while (value >= 999.5 && unit < BYTE_UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit === 0 || value >= 99.95 ? Math.round(value) : value.toPrecision(value >= 9.995 ? 3 : 2)} ${BYTE_UNITS[unit]}`;
}

/** Such as 45 ms or 1.29 s. */
export function seconds(value) {
  return value < 0.9995 ? `${Math.round(value * 1000)} ms` : `${value.toFixed(2)} s`;
}

/** Such as 5 min: how long something has lasted. */
export function lasting(value) {
  const steps = [[86400, "d"], [3600, "h"], [60, "min"]];
  for (const [size, unit] of steps) if (value >= size) return `${Math.floor(value / size)}\u00a0${unit}`;
  return `${Math.floor(value)}\u00a0s`;
}

/** Such as 1,811. */
export const count = (value) => value.toLocaleString("en");

const ORDINALS = new Intl.PluralRules("en", { type: "ordinal" });
const SUFFIXES = { one: "st", two: "nd", few: "rd", other: "th" };

/** Such as 3rd. */
export const ordinal = (value) => `${count(value)}${SUFFIXES[ORDINALS.select(value)]}`;

/** Such as 1 passage, 4 passages. */
export const counted = (value, word) => `${count(value)} ${word}${value === 1 ? "" : "s"}`;

/** Such as 41 %. */
export const percent = (share) => `${Math.round(share * 100)} %`;

/** Such as a, b and c. */
export function listed(names) {
  if (names.length < 2) return names.join("");
  return `${names.slice(0, -1).join(", ")} and ${names[names.length - 1]}`;
}

/** Time of day. */
export const clock = (date) => date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });

/** Date and time of day. */
export const moment = (date) => date.toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
