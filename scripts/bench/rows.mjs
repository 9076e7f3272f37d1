/**
 * A result: one row of the tables and of the JSON.
 * @typedef {object} Row
 * @property {string} name the benchmark
 * @property {string} backend `webgpu`, `wasm`, or a peer with its version
 * @property {number} batch
 * @property {number} [context] tokens in the KV pool at the start
 * @property {string} [part] what of the benchmark it is, where it measures several things at once
 * @property {string} unit
 * @property {number | null} median null = it did not come to an end: see `note`
 * @property {number | null} min
 * @property {number | null} max
 * @property {number} runs
 * @property {string} [note]
 */

/** What the part of `breakdown` is called that is the sum of the others. */
export const STEP_IN_WORKER = "step in the worker";

/**
 * Lines of a table, columns aligned: the first to the left, the others to the right.
 * @param {readonly (readonly string[])[]} lines the first is the head
 */
export function alignTable(lines) {
  const [head = []] = lines;
  const widths = head.map((_, column) =>
    Math.max(...lines.map((line) => line[column]?.length ?? 0)),
  );
  return lines.map((line) =>
    line
      .map((cell, column) =>
        column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0),
      )
      .join("  ")
      .trimEnd(),
  );
}

/** @param {readonly Row[]} rows */
export function resultTable(rows) {
  const lines = [["name", "batch", "context", "median", "min", "max", "unit", "runs", ""]];
  for (const { name, part, batch, context, unit, median, min, max, runs, note } of rows) {
    const rate =
      unit === "ms/step" && part === undefined && median !== null
        ? `${((batch * 1000) / median).toFixed(1)} tokens/s`
        : "";
    lines.push([
      part === undefined ? name : `${name}: ${part}`,
      String(batch),
      context === undefined ? "" : String(context),
      ...[median, min, max].map((value) => (value === null ? "-" : digits(value))),
      unit,
      String(runs),
      note ?? rate,
    ]);
  }
  return alignTable(lines);
}

/** Three or more digits that count. @param {number} value */
export function digits(value) {
  return value.toFixed(value >= 100 ? 1 : value >= 10 ? 2 : 3);
}

/**
 * What decode steps cost beside the bare linear layers of the same run.
 * @param {readonly Row[]} rows
 */
export function stepRatios(rows) {
  return rows.flatMap(({ name, batch, context, median }) => {
    if (name !== "decode" || median === null) return [];
    const bare = rows.find(
      (row) => (row.name === "linear" || row.name === "walk") && row.batch === batch,
    );
    if (bare === undefined || bare.median === null) return [];
    const times = (median / bare.median).toFixed(2);
    const percent = ((100 * bare.median) / median).toFixed(0);
    return [
      `batch ${batch}, context ${context}: a decode step takes ${times} x its bare linear layers ` +
        `(${bare.name}), whose rate it reaches to ${percent} %`,
    ];
  });
}

/**
 * Where a decode step goes: the parts of `breakdown`, and what `decode` of the same run takes beyond
 * the whole of them.
 * @param {readonly Row[]} rows
 */
export function breakdownTable(rows) {
  const total = STEP_IN_WORKER;
  const parts = rows.filter(({ name }) => name === "breakdown");
  const batches = [...new Set(parts.map(({ batch }) => batch))];
  const find = (/** @type {string} */ part, /** @type {number} */ batch) =>
    parts.find((row) => row.part === part && row.batch === batch)?.median ?? undefined;
  const wholeOf = (/** @type {number} */ batch) => {
    const decode = rows.find((row) => row.name === "decode" && row.batch === batch)?.median;
    return decode ?? find(total, batch);
  };
  const cells = (/** @type {(batch: number) => number | undefined} */ timeOf) =>
    batches.flatMap((batch) => {
      const value = timeOf(batch);
      const whole = wholeOf(batch);
      if (value === undefined || whole === undefined) return ["-", "-"];
      return [digits(value), `${((100 * value) / whole).toFixed(1)} %`];
    });
  const names = [...new Set(parts.map(({ part = "" }) => part))].filter((part) => part !== total);
  const lines = [
    ["where a step goes", ...batches.flatMap((batch) => [`batch ${batch}: ms`, "share"])],
    ...names.map((part) => [part, ...cells((batch) => find(part, batch))]),
    [total, ...cells((batch) => find(total, batch))],
  ];
  if (rows.some(({ name }) => name === "decode")) {
    lines.push(
      [
        "scheduling, messages, text",
        ...cells((batch) => {
          const [whole, inWorker] = [wholeOf(batch), find(total, batch)];
          return whole === undefined || inWorker === undefined ? undefined : whole - inWorker;
        }),
      ],
      ["decode step through the API", ...cells(wholeOf)],
    );
  }
  return alignTable(lines);
}
