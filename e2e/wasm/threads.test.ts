import { afterAll, afterEach, describe, expect, test } from "vitest";
import type { Plan } from "../../src/backends/ops.ts";
import { command, control } from "../../src/backends/wasm/abi.ts";
import { makePlan, makeStep } from "../fixtures/drivePlan.ts";
import { makeTinyModel } from "../fixtures/tinyModel.ts";
import { NodeThreads } from "./nodeThreads.ts";

const nodeThreads = await NodeThreads.create();
const plans: Plan[] = [];

afterEach(async () => {
  for (const plan of plans.splice(0)) plan.dispose();
  await nodeThreads.endWorkers();
});
afterAll(() => nodeThreads.dispose());

/** `code` replaces what the threads beside the caller's run. */
async function openPlan(threads: number, code?: string): Promise<Plan> {
  const backend = await nodeThreads.open(threads, code);
  const model = makeTinyModel({ type: "Q4_1", layers: 2, seed: 5 });
  const plan = await makePlan(model, { kvBlocks: 16, maxRows: 64 }, backend);
  plans.push(plan);
  return plan;
}

/** Logits' bits after a prompt of 40 rows and 20 decoded ones. */
async function run(plan: Plan): Promise<readonly (readonly number[])[]> {
  const blocks = [3, 1, 7, 12];
  const all: number[][] = [];
  let start = 0;
  for (let id = 0; id <= 20; id++) {
    const tokens = Array.from({ length: id === 0 ? 40 : 1 }, (_, i) => (start + i * 7) % 300);
    const rows = { slot: 0, tokens, start, blocks, isSampled: true };
    await plan.submit(makeStep(id, 16, [rows])).result;
    all.push([...new Uint32Array((await plan.readLogits()).buffer)]);
    start += tokens.length;
  }
  return all;
}

describe("threads", () => {
  test("one, two and three of them give the same bits", async () => {
    const alone = await run(await openPlan(1));
    expect(await run(await openPlan(2))).toEqual(alone);
    expect(await run(await openPlan(3))).toEqual(alone);
  });

  test("one that does not start is a coded error", async () => {
    const failing = `const { workerData: port } = require("node:worker_threads");
      port.on("message", () => port.postMessage({ type: "failed", message: "no memory" }));`;
    await expect(openPlan(2, failing)).rejects.toMatchObject({
      code: "worker-failed",
      message: expect.stringContaining("no memory"),
    });
  });

  test("one that sleeps through a step holds up nobody", async () => {
    const sleeping = `const { workerData: port } = require("node:worker_threads");
      port.on("message", () => port.postMessage({ type: "ready" }));`;
    const alone = await run(await openPlan(1));
    expect(await run(await openPlan(2, sleeping))).toEqual(alone);
  });

  test("one that dies with its part unfinished is a coded error", { timeout: 30_000 }, async () => {
    const dying = `const { workerData: port } = require("node:worker_threads");
      port.on("message", ({ memory }) => {
        const words = new Int32Array(memory.buffer);
        port.postMessage({ type: "ready" });
        for (let taken = false; !taken; ) {
          Atomics.wait(words, ${control.EPOCH / 4}, 0);
          const program = words[${control.PROGRAM / 4}] / 4;
          for (let i = 0; i < words[${control.COMMANDS / 4}] && !taken; i++) {
            const at = program + i * ${command.BYTES / 4};
            if (Atomics.load(words, at + ${command.NEXT}) >= words[at + ${command.CHUNKS}]) continue;
            taken = Atomics.add(words, at + ${command.NEXT}, 1) < words[at + ${command.CHUNKS}];
          }
        }
      });`;
    const plan = await openPlan(2, dying);
    // Others may be faster, for some steps.
    await expect(
      (async () => {
        for (let i = 0; i < 100; i++) await run(plan);
      })(),
    ).rejects.toMatchObject({ code: "worker-failed" });
    await expect(run(plan)).rejects.toMatchObject({ code: "worker-failed" });
  });
});
