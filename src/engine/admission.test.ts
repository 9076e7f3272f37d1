import { describe, expect, it } from "vitest";
import { Admission } from "./admission.ts";
import { OutputEstimate } from "./outputEstimate.ts";
import { GREEDY } from "./sampling.ts";
import { Sequence } from "./sequence.ts";

const BLOCK_SIZE = 16;

function createSequence(numOutputTokens: number, numBlocks: number, maxTokens = 1000): Sequence {
  const sequence = new Sequence({
    requestId: 0,
    index: 0,
    arrival: 0,
    promptTokens: [1],
    maxTokens,
    stopTokens: new Set(),
    sampling: GREEDY,
  });
  for (let i = 0; i < numOutputTokens; i++) sequence.tokens.push(2);
  for (let i = 0; i < numBlocks; i++) sequence.blockTable.push(i);
  return sequence;
}

/** Answers are known to have 41 tokens. */
function createAdmission(): Admission {
  const estimate = new OutputEstimate();
  for (let i = 0; i < 50; i++) estimate.record(41);
  return new Admission(BLOCK_SIZE, estimate);
}

/** As careful as it gets: much was lost to preemptions. */
function createCareful(): Admission {
  const admission = createAdmission();
  admission.record(1e9, 1);
  return admission;
}

describe("Admission", () => {
  it("keeps nothing free where nobody runs", () => {
    expect(createCareful().reserveBlocks([])).toBe(0);
  });

  it("keeps free what those who run are expected to grow by", () => {
    const admission = createCareful();
    expect(admission.reserveBlocks([createSequence(0, 1)])).toBe(Math.floor(41 / 16));
    expect(admission.reserveBlocks([createSequence(0, 1), createSequence(0, 1)])).toBe(
      Math.floor(82 / 16),
    );
    expect(admission.reserveBlocks([createSequence(0, 1, 9), createSequence(0, 1, 9)])).toBe(1);
  });

  it("counts on the blocks of those who end first", () => {
    const admission = createCareful();
    const short = createSequence(31, 9); // 10 tokens to go, then its blocks come back
    const long = createSequence(0, 1);
    expect(admission.reserveBlocks([long, short])).toBe(Math.floor((2 * 10) / 16));
    const poor = createSequence(31, 0);
    expect(admission.reserveBlocks([long, poor])).toBe(Math.floor(41 / 16));
  });

  it("becomes careful by what is lost, and bold again in quiet", () => {
    const admission = createAdmission();
    const running = Array.from({ length: 100 }, () => createSequence(0, 1));
    const worst = Math.floor((100 * 41) / 16);
    const atFirst = admission.reserveBlocks(running);
    expect(atFirst).toBeGreaterThan(0);
    expect(atFirst).toBeLessThan(worst);
    const seen = [atFirst];
    for (let i = 0; i < 5; i++) {
      admission.record(1000, 50);
      seen.push(admission.reserveBlocks(running));
    }
    expect(seen).toEqual([...seen].sort((a, b) => a - b));
    expect(seen.at(-1)).toBeGreaterThan(atFirst);
    admission.record(1e9, 50);
    expect(admission.reserveBlocks(running)).toBe(worst);
    for (let i = 0; i < 1000; i++) admission.record(0, 50);
    expect(admission.reserveBlocks(running)).toBe(0);
  });

  it("learns nothing from steps that cost nothing", () => {
    const admission = createAdmission();
    admission.record(0, 0);
    expect(admission.reserveBlocks([createSequence(0, 1)])).toBeGreaterThanOrEqual(0);
  });
});
