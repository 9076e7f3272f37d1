/** `98.4 MB`: decimal units, as file managers and downloads show them. */
export function formatBytes(bytes: number): string {
  if (bytes < 1000) return `${bytes} B`;
  const units = ["kB", "MB", "GB", "TB"] as const;
  let value = bytes / 1000;
  let unit = 0;
  // 999.95 would be shown as 1000.0.
  while (value >= 999.95 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${value.toFixed(1)} ${units[unit]}`;
}

/** `135 M`: counts of weights. */
export function formatCount(count: number): string {
  if (count < 1e3) return String(count);
  if (count < 1e6) return `${(count / 1e3).toFixed(0)} k`;
  if (count < 1e9) return `${(count / 1e6).toFixed(0)} M`;
  return `${(count / 1e9).toFixed(1)} B`;
}

/** `12.3`, `0.42`: tokens a second. */
export function formatRate(rate: number): string {
  return rate >= 100 ? rate.toFixed(0) : rate >= 1 ? rate.toFixed(1) : rate.toFixed(2);
}

/** `40 ms`, `1.2 s`, `12 s`. */
export function formatDuration(milliseconds: number): string {
  if (milliseconds < 999.5) return `${milliseconds.toFixed(0)} ms`;
  const seconds = milliseconds / 1000;
  return `${seconds < 10 ? seconds.toFixed(1) : seconds.toFixed(0)} s`;
}

/** The last part of a URL's path, for people. */
export function fileNameOf(url: string): string {
  const path = URL.canParse(url) ? new URL(url).pathname : url;
  const name = path.split("/").at(-1) || url;
  try {
    return decodeURIComponent(name);
  } catch {
    return name; // A stray % sign.
  }
}
