import { describe, expect, it } from "vitest";
import { countTokens, drive, driveAll, requests, TEST_MODEL } from "../testing/drive.ts";
import { Vllm, type VllmOptions } from "./vllm.ts";

function vllm(kvSlots: number, options: Partial<VllmOptions> = {}): Vllm {
  return new Vllm({ model: { ...TEST_MODEL, kvSlots }, seed: 1, blockSize: 4, ...options });
}

function fill(system: Vllm, ...args: Parameters<typeof requests>): void {
  for (const request of requests(...args)) system.add(request);
}

describe("vLLM as in the paper", () => {
  it("takes blocks for the prompt, and one more whenever the last is full", async () => {
    const system = vllm(64);
    fill(system, [[6, 8]]);
    const blocks = [];
    while (system.hasWork) {
      await drive(system);
      blocks.push(system.kv.physicalBlocks);
    }
    expect(blocks).toEqual([2, 2, 2, 3, 3, 3, 3, 4]);
  });

  it("computes whole prompts beside the others' next tokens", async () => {
    const system = vllm(64);
    fill(system, [[6, 8]]);
    await drive(system);
    fill(system, [[5, 2]], { index: 1, firstSequence: 1 });
    const { ms, tokens } = await drive(system);
    expect(ms).toBe(10 + 1 + 5);
    expect(tokens).toEqual([0, 1]);
  });

  it("admits nobody into the last hundredth of the blocks", async () => {
    // 100 blocks, watermark 1: 99 blocks of prompts, and then one that would take the last.
    const system = vllm(400);
    fill(system, [
      [99 * 4, 2],
      [4, 2],
    ]);
    await drive(system);
    expect([system.batchSize, system.numWaiting]).toEqual([1, 1]);
  });

  it("takes the latest arrival's blocks, recomputes it, and gives everyone all tokens", async () => {
    const system = vllm(40); // 10 blocks
    fill(system, [
      [12, 12],
      [12, 12],
    ]);
    const steps = await driveAll(system);
    expect(Object.fromEntries(countTokens(steps))).toEqual({ 0: 12, 1: 12 });
    expect(system.numPreemptions).toBe(1);
    // The first is never interrupted.
    expect(steps.slice(0, 12).every(({ tokens }) => tokens.includes(0))).toBe(true);
    // Both have 17 tokens in 5 blocks. The rule asks for a free block whether or not one is needed.
    expect(system.recomputedTokens).toBe(17);
    expect(system.computedTokens).toBe(2 * (12 + 11) + system.recomputedTokens);
  });

  it("swaps requests with several sequences, and recomputes nothing", async () => {
    const system = vllm(64); // 16 blocks
    fill(
      system,
      [
        [12, 14],
        [12, 14],
      ],
      { width: 2 },
    );
    const steps = await driveAll(system);
    expect(system.numPreemptions).toBeGreaterThan(0);
    expect(system.recomputedTokens).toBe(0);
    expect(Object.fromEntries(countTokens(steps))).toEqual({ 0: 14, 1: 14, 2: 14, 3: 14 });
  });

  it("admits nobody new while somebody is swapped out", async () => {
    const system = vllm(64);
    fill(
      system,
      [
        [12, 14],
        [12, 14],
      ],
      { width: 2 },
    );
    while (system.numPreemptions === 0) await drive(system);
    fill(system, [[1, 1]], { index: 2, firstSequence: 4 });
    const steps = await driveAll(system);
    const newcomer = steps.findIndex(({ tokens }) => tokens.includes(4));
    const swapped = steps.findIndex(({ tokens }) => tokens.includes(2));
    expect(newcomer).toBeGreaterThanOrEqual(swapped);
  });

  it("shares the prompt's blocks among samples until they write", async () => {
    const system = vllm(64);
    fill(system, [[6, 3]], { width: 3 });
    await drive(system);
    expect(system.kv).toMatchObject({ logicalBlocks: 6, physicalBlocks: 2, tokenStates: 6 });
    await drive(system);
    // Two copies of the partial block; the last holder writes in place.
    expect(system.kv).toMatchObject({ logicalBlocks: 6, physicalBlocks: 4 });
  });

  it("never computes a reserved prefix, and keeps it once", async () => {
    const system = vllm(64);
    fill(
      system,
      [
        [13, 2],
        [14, 2],
      ],
      { prefix: { id: 0, tokens: 10 } },
    );
    const { ms } = await drive(system);
    expect(ms).toBe(10 + 3 + 4);
    // Two full blocks of the prefix, its third, and two private blocks each.
    expect(system.kv.physicalBlocks).toBe(2 + 1 + 2 + 2);
  });

  it("computes and keeps a prefix that nobody reserved", async () => {
    const system = vllm(64, { reservesPrefixes: false });
    fill(system, [[13, 2]], { prefix: { id: 0, tokens: 10 } });
    const { ms } = await drive(system);
    expect(ms).toBe(10 + 13);
    expect(system.kv.physicalBlocks).toBe(4);
  });

  it("stops at the first request that does not fit, unless it may pass it over", async () => {
    for (const [maxPassedOver, waiting] of [
      [0, 2],
      [1, 1],
    ] as const) {
      const system = vllm(64, { maxPassedOver });
      fill(system, [
        [30, 2],
        [40, 2],
        [8, 2],
      ]);
      await drive(system);
      expect(system.numWaiting).toBe(waiting);
    }
  });

  it("can choose another victim than the latest", async () => {
    const first = async (victim: VllmOptions["victim"]) => {
      const system = vllm(40, { victim });
      fill(system, [
        [16, 12],
        [8, 12],
        [4, 12],
      ]);
      while (system.numPreemptions === 0) await drive(system);
      const { tokens } = await drive(system);
      return [0, 1, 2].filter((sequence) => !tokens.includes(sequence));
    };
    expect(await first("latest")).toEqual([2]);
    expect(await first("least-computed")).toEqual([2]);
    expect(await first("most-computed")).toEqual([0]);
  });
});
