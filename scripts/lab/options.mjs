import { UsageError } from "../lib/errors.mjs";
import { parseFlags } from "../lib/flags.mjs";

export const LAB_FLAGS = /** @satisfies {Record<string, import("../lib/flags.mjs").Flag>} */ (
  /** @type {const} */ ({
    seed: { type: "integer", min: 0, max: 2 ** 31 - 1, help: "of lengths, arrivals and beams (1)" },
    json: { type: "boolean", help: "one object on the last line of standard output" },
  })
);

/**
 * Reads the command line of `lab`. Throws a UsageError.
 * @param {readonly string[]} argv
 * @param {readonly string[]} known ids of experiments
 * @returns {{ ids: readonly string[], seed: number, json: boolean } | "help"}
 */
export function parseLab(argv, known) {
  const { values, positionals, help } = parseFlags(argv, LAB_FLAGS, { positionals: "experiments" });
  if (help) return "help";
  const asked = positionals.map((id) => id.toUpperCase());
  for (const id of asked) {
    if (known.includes(id)) continue;
    throw new UsageError(`There is no experiment ${id}. Valid: ${known.join(", ")}.`);
  }
  const ids = asked.length === 0 ? known : known.filter((id) => asked.includes(id));
  return { ids, seed: values.seed ?? 1, json: values.json };
}
