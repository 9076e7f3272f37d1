import type { Step } from "../../engine/step.ts";
import { invariant } from "../../errors.ts";
import type { PlanSpec } from "../ops.ts";
import { reachableContext } from "../reachableContext.ts";

/**
 * Complains of a step that `engine/step.ts` does not allow. Other back ends trust the engine and would
 * compute nonsense, and not the same everywhere, since their threads run in any order.
 */
export function checkStep(step: Step, spec: PlanSpec): void {
  const { rows, samples, scores, blockTableEntries, slotResets } = step;
  const { maxRows, maxSequences } = spec;
  invariant(
    rows.length >= 1 && rows.length <= maxRows,
    `A step has ${rows.length} rows; 1 to ${maxRows} are allowed.`,
  );
  const numLogits = samples.length + scores.length;
  invariant(
    numLogits <= maxSequences,
    `A step wants the logits of ${numLogits} rows; ${maxSequences} is the most.`,
  );
  for (const { slot } of slotResets) {
    invariant(slot >= 0 && slot < maxSequences, `Slot ${slot} does not exist.`);
  }
  const context = reachableContext(spec);
  for (const { position } of rows) {
    invariant(position < context, `Position ${position} is past the context of ${context}.`);
  }
  const tableBlocks = Math.ceil(context / spec.blockSize);
  for (const { slot, index } of blockTableEntries) {
    const name = `Entry ${index} of slot ${slot}`;
    invariant(index < tableBlocks, `${name} is past a block table of ${tableBlocks}.`);
  }
  const entries = blockTableEntries.map(({ slot, index }) => `${index} of slot ${slot}`);
  checkUnique(entries, "Block-table entry");
  for (const { row, slot, position } of samples) {
    const found = rows[row];
    invariant(found, `A sample of slot ${slot} is drawn from row ${row} of ${rows.length}.`);
    invariant(
      found.position + 1 === position,
      `A sample for position ${position} is drawn from the row of position ${found.position}.`,
    );
  }
  checkMoves(step, spec);
}

function checkMoves({ hostReleases, swapOuts, swapIns, copies }: Step, spec: PlanSpec): void {
  const { numBlocks, numHostBlocks, maxSequences } = spec;
  invariant(
    copies.length <= maxSequences,
    `A step copies ${copies.length} blocks; ${maxSequences} is the most.`,
  );
  const blocks = [...swapOuts, ...swapIns].map(({ block }) => block);
  for (const block of [...blocks, ...copies.flatMap(({ source, target }) => [source, target])]) {
    invariant(block >= 0 && block < numBlocks, `Block ${block} is not in the KV pool.`);
  }
  const swapped = [...swapOuts, ...swapIns].map(({ hostBlock }) => hostBlock);
  const hostBlocks = [...hostReleases, ...swapped];
  for (const hostBlock of hostBlocks) {
    invariant(
      hostBlock >= 0 && hostBlock < numHostBlocks,
      `Host block ${hostBlock} does not exist; there are ${numHostBlocks}.`,
    );
  }
  checkUnique(hostBlocks, "Host block");
  checkUnique(
    [...swapIns.map(({ block }) => block), ...copies.map(({ target }) => target)],
    "The target block",
  );
  const sources = new Set(copies.map(({ source }) => source));
  for (const { target } of copies) {
    invariant(!sources.has(target), `Block ${target} is both source and target of copies.`);
  }
}

function checkUnique(values: readonly (number | string)[], what: string): void {
  const seen = new Set<number | string>();
  for (const value of values) {
    invariant(!seen.has(value), `${what} ${value} is named twice in a step.`);
    seen.add(value);
  }
}
