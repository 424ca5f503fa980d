// Numbers and times as people read them.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

export function bytes(count: number | null | undefined): string {
  if (count == null) return "–";
  let [value, unit] = [count, 0];
  while (value >= 1024 && unit < UNITS.length - 1) [value, unit] = [value / 1024, unit + 1];
  return `${digits(value, unit === 0)} ${UNITS[unit]}`;
}

export function rate(bitsPerSecond: number | null | undefined): string {
  if (bitsPerSecond == null) return "–";
  if (bitsPerSecond >= 1e9) return `${digits(bitsPerSecond / 1e9)} Gbit/s`;
  if (bitsPerSecond >= 1e6) return `${digits(bitsPerSecond / 1e6)} Mbit/s`;
  if (bitsPerSecond >= 1e3) return `${digits(bitsPerSecond / 1e3)} kbit/s`;
  return `${Math.round(bitsPerSecond)} bit/s`;
}

export function latency(ms: number | null | undefined): string {
  if (ms == null) return "–";
  return `${ms < 10 ? Math.round(ms * 10) / 10 : Math.round(ms)} ms`;
}

function digits(value: number, whole = false): string {
  return whole || value >= 100 ? String(Math.round(value)) : value.toFixed(1);
}

/** How long ago, such as `3 min ago`. */
export function ago(time: string, now: number): string {
  const seconds = Math.round((now - Date.parse(time)) / 1000);
  if (Number.isNaN(seconds)) return "–";
  if (seconds < 0) return `in ${span(-seconds)}`;
  return seconds < 5 ? "now" : `${span(seconds)} ago`;
}

export function span(seconds: number): string {
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

/** The time in full, in the reader's own zone. */
export function full(time: string): string {
  const date = new Date(time);
  return Number.isNaN(date.getTime()) ? time : date.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
}

/** A sentence of the server's as one begins on a page. */
export function sentence(text: string): string {
  // Addresses and settings are written as they are.
  return /^(\w+:\/\/|--)/.test(text) ? text : text.charAt(0).toUpperCase() + text.slice(1);
}

/** `warren-agent 0.1.0` without its name. */
export function version(build: string | null | undefined): string {
  return build ? build.replace(/^warren-\w+ /, "") : "–";
}
