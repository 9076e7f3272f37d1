/** Says something to the person at the terminal. Standard output is kept for results. @param {string} text */
export function say(text) {
  process.stderr.write(`${text}\n`);
}

const BAR_CELLS = 24;

/**
 * One line of a progress bar.
 * @param {string} label
 * @param {number} done bytes
 * @param {number} total bytes; 0 = unknown
 */
export function progressLine(label, done, total) {
  const megabytes = (/** @type {number} */ bytes) => (bytes / 1e6).toFixed(1);
  if (total <= 0) return `${label} ${megabytes(done)} MB`;
  const part = Math.min(1, done / total);
  const full = Math.round(part * BAR_CELLS);
  const bar = `${"#".repeat(full)}${"-".repeat(BAR_CELLS - full)}`;
  return `${label} [${bar}] ${Math.floor(part * 100)} % of ${megabytes(total)} MB`;
}

/**
 * A progress bar on standard error: redrawn in place on a terminal, a line for each tenth elsewhere.
 * @param {string} label
 * @param {number} total bytes; 0 = unknown
 * @param {{ write(text: string): unknown, isTTY?: boolean }} [out]
 * @returns {{ update(done: number): void, end(): void }}
 */
export function createProgress(label, total, out = process.stderr) {
  const step = total > 0 ? total / 10 : 10e6;
  let last = -1;
  let drawn = "";
  return {
    update(done) {
      const line = progressLine(label, done, total);
      if (out.isTTY) {
        if (line !== drawn) out.write(`\r${line}`);
        drawn = line;
        return;
      }
      const tenth = Math.floor((total > 0 ? Math.min(done, total) : done) / step);
      if (tenth > last) out.write(`${line}\n`);
      last = Math.max(last, tenth);
    },
    end() {
      if (out.isTTY && drawn !== "") out.write("\n");
    },
  };
}
