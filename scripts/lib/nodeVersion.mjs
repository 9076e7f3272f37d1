import { readFileSync } from "node:fs";
import { SetupError } from "./errors.mjs";
import { inRoot } from "./paths.mjs";

/** Throws a SetupError where this Node is none that package.json names: the tools need it. */
export function checkNode(version = process.versions.node) {
  const range = JSON.parse(readFileSync(inRoot("package.json"), "utf8")).engines.node;
  if (isInRange(version, range)) return;
  throw new SetupError(
    "setup-node",
    `Node ${version} does not do: the tools that build Quire need Node ${range}.`,
  );
}

/**
 * Whether a version is in a range of npm's, of the kinds that `engines` is written with: `20`,
 * `10.*`, `^20.19.0`, `>= 14.6`, `*`, and several of them with `||`.
 * @param {string} version
 * @param {string} range
 */
export function isInRange(version, range) {
  const found = numbersOf(version);
  return range.split("||").some((part) => {
    const [, sign = "", least = ""] = /^\s*(\^|>=|)\s*([\d.*]+)\s*$/.exec(part) ?? [];
    if (least === "") throw new Error(`The range of versions ${range} cannot be read.`);
    const wanted = numbersOf(least);
    // A bare version fixes what it names; a caret the first number.
    const numFixed = sign === "" ? wanted.length : sign === "^" ? 1 : 0;
    return (
      wanted.slice(0, numFixed).every((number, i) => number === found[i]) &&
      compare(found, wanted) >= 0
    );
  });
}

/** @param {string} version */
function numbersOf(version) {
  return version.split(".").map(Number).filter(Number.isInteger);
}

/** @param {readonly number[]} a @param {readonly number[]} b */
function compare(a, b) {
  for (let i = 0; i < b.length; i++) {
    const difference = (a[i] ?? 0) - (b[i] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}
