import type { CostModel } from "../costModel.ts";
import type { System } from "../system.ts";
import type { LabRequest } from "../workloads.ts";

/** A step takes 10 ms and 1 ms a row; nothing else costs. */
export const TEST_MODEL: CostModel = {
  name: "test",
  kvSlots: 64,
  kvBytesPerToken: 1,
  numLayers: 1,
  rowCosts: [[1, 11]],
  msPerFurtherRow: 1,
  msPerSequence: 0,
  msPerContextToken: 0,
  hostBytesPerMs: 1e9,
  msPerHostCopy: 0,
  swapBytes: 0,
  memoryBytes: 0,
  weightBytes: 0,
};

/** Requests of these lengths that arrive at the start. */
export function requests(
  lengths: readonly (readonly [promptTokens: number, outputTokens: number])[],
  fields: Partial<LabRequest> = {},
): LabRequest[] {
  const { width = 1 } = fields;
  return lengths.map(([promptTokens, outputTokens], index) => ({
    index,
    firstSequence: index * width,
    arrivalMs: 0,
    promptTokens,
    outputTokens,
    width,
    isBeam: false,
    prefix: undefined,
    ...fields,
  }));
}

/** What a step has come to. */
export interface Driven {
  readonly ms: number;
  /** Sequences with a new token, and requests that are done, by number. */
  readonly tokens: number[];
  readonly finished: number[];
}

/** One step of a system. */
export async function drive(system: System, nowMs = 0): Promise<Driven> {
  const tokens: number[] = [];
  const finished: number[] = [];
  const ms = await system.step(nowMs, {
    token: (sequence) => tokens.push(sequence),
    finish: (request) => finished.push(request.index),
  });
  return { ms, tokens, finished };
}

/** Steps until all is done. */
export async function driveAll(system: System): Promise<Driven[]> {
  const steps: Driven[] = [];
  let nowMs = 0;
  while (system.hasWork) {
    const step = await drive(system, nowMs);
    nowMs += step.ms;
    steps.push(step);
  }
  return steps;
}

/** Tokens of each sequence over some steps. */
export function countTokens(steps: readonly Driven[]): Map<number, number> {
  const counts = new Map<number, number>();
  for (const { tokens } of steps) {
    for (const sequence of tokens) counts.set(sequence, (counts.get(sequence) ?? 0) + 1);
  }
  return counts;
}
