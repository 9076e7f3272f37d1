import { beforeAll, describe, expect, test } from "vitest";
import { EMPTY_STEP } from "../../../e2e/fixtures/emptyStep.ts";
import { makeTinyModel } from "../../../e2e/fixtures/tinyModel.ts";
import { QuireError } from "../../errors.ts";
import { recordForward } from "../../model/forward.ts";
import { type Model, openModel } from "../../model/model.ts";
import { planSpec } from "../../model/planSpec.ts";
import { createBufferSource } from "../../weights/bufferSource.ts";
import type { Backend, Plan } from "../ops.ts";
import { createWebGpuBackend } from "./backend.ts";
import { watchMemory } from "./outOfMemory.ts";
import { FakeDevice, fakeGpu, installGpuGlobals } from "./testing/fakeDevice.ts";

const NUM_BLOCKS = 64;

let model: Model;
beforeAll(async () => {
  installGpuGlobals();
  const gguf = makeTinyModel({ type: "Q4_1", layers: 2, seed: 3, contextLength: 512 });
  model = await openModel(createBufferSource(gguf, "tiny"));
});

/** A device with so much memory, its back end, and what it reports to nobody in particular. */
async function open(memoryBytes: number) {
  const device = new FakeDevice({ memoryBytes });
  const uncaptured: string[] = [];
  device.addEventListener("uncapturederror", (event) => {
    uncaptured.push((event as unknown as GPUUncapturedErrorEvent).error.message);
  });
  const backend = await createWebGpuBackend({ gpu: fakeGpu(device) });
  return { device, backend, uncaptured };
}

function build(backend: Backend): Promise<Plan> {
  const spec = planSpec(model.config, { kvBlocks: NUM_BLOCKS, maxSequences: 4, maxRows: 32 });
  const builder = backend.createPlanBuilder(spec);
  recordForward(builder, model);
  return builder.finish();
}

const swapStep = (id: number) => ({
  ...EMPTY_STEP,
  id,
  swapOuts: [{ block: 1, hostBlock: 0 }],
  rows: [{ slot: 0, token: 5, position: 0, kvSlot: 0 }],
});

describe("a device that runs out of memory", () => {
  test("builds a plan whole or not at all, whatever there is, and reports nothing to nobody", async () => {
    const { device: large, backend } = await open(Infinity);
    const plan = await build(backend);
    // Just too little for each buffer in turn, then enough for pools of all sizes.
    const budgets: number[] = [];
    let bytes = 0;
    for (const { size } of large.live) {
      bytes += size;
      budgets.push(bytes - 1);
    }
    for (let missing = 0; missing < NUM_BLOCKS; missing += 3) {
      budgets.push(bytes - missing * plan.blockBytes);
    }

    const failed = new Set<string>();
    const sizes = new Set<number>();
    for (const memoryBytes of budgets) {
      const { device, backend, uncaptured } = await open(memoryBytes);
      try {
        const { numBlocks } = await build(backend);
        sizes.add(numBlocks);
      } catch (error) {
        expect(error).toBeInstanceOf(QuireError);
        const { code, data, message } = error as QuireError;
        expect(code, message).toBe("out-of-memory");
        expect(data["bytes"]).toBeGreaterThan(0);
        failed.add(/(?:bytes of|for a) ([\w ,]+)(?: of \d+ blocks|\.)/.exec(message)![1]!);
        const kept = [...device.live].filter(({ label }) => !label.startsWith("constants"));
        expect(kept).toEqual([]);
      }
      expect(uncaptured, `${memoryBytes} bytes`).toEqual([]);
      expect(device.numOpenScopes).toBe(0);
      expect(await isLost(backend)).toBe(false);
    }
    expect([...failed].sort()).toEqual([
      "KV pool",
      "sampling state",
      "scratch",
      "step uploads",
      "weights",
      "weights, KV pool, scratch and kernel constants together",
    ]);
    expect([...sizes].sort((a, b) => a - b)).toEqual([4, 8, 16, 32, 64]);
  });

  test("runs a plan whose pool came out smaller", async () => {
    const { device: large, backend: other } = await open(Infinity);
    await build(other);
    const { backend, uncaptured } = await open(large.usedBytes - 1000);
    const plan = await build(backend);
    expect(plan.numBlocks).toBe(NUM_BLOCKS / 2);
    await plan.submit({ ...swapStep(0), swapOuts: [] }).result;
    expect(uncaptured).toEqual([]);
    expect(await isLost(backend)).toBe(false);
  });

  test("fails a swap by code, and the next one finds room that there is again", async () => {
    const { device, backend, uncaptured } = await open(Infinity);
    const plan = await build(backend);
    const staged = 2 * plan.blockBytes; // what a block goes through, at the least
    for (const room of [0, plan.blockBytes, staged]) {
      device.memoryBytes = device.usedBytes + room;
      await expect(plan.submit(swapStep(0)).result).rejects.toMatchObject({
        code: "out-of-memory",
        message: expect.stringMatching(/no room for [1-9]\d* bytes of buffers that swapped blocks/),
      });
    }
    device.memoryBytes = Infinity;
    await plan.submit(swapStep(1)).result;
    expect(plan.memory.swapped).toBe(plan.blockBytes);
    expect(uncaptured).toEqual([]);
    expect(await isLost(backend)).toBe(false);
  });

  test("ends the engine by code where nobody watches", async () => {
    const { device, backend } = await open(10);
    device.createBuffer({ size: 16, usage: GPUBufferUsage.STORAGE, label: "result" });
    await expect(backend.lost).resolves.toMatchObject({ code: "out-of-memory" });
  });
});

describe("a watch for memory", () => {
  test("tells what is invalid from what has no room", async () => {
    const device = new FakeDevice({ maxBufferSize: 100 });
    const endWatch = watchMemory(device as unknown as GPUDevice);
    device.createBuffer({ size: 200, usage: GPUBufferUsage.STORAGE });
    await expect(endWatch()).rejects.toMatchObject({ code: "internal" });
  });

  test("says that the device is gone", async () => {
    const device = new FakeDevice();
    const endWatch = watchMemory(device as unknown as GPUDevice);
    device.popErrorScope = () => Promise.reject(new Error("The device is lost."));
    await expect(endWatch()).rejects.toMatchObject({ code: "device-lost" });
  });
});

async function isLost({ lost }: Backend): Promise<boolean> {
  const turn = new Promise<false>((resolve) => setTimeout(() => resolve(false), 0));
  return Promise.race([lost.then(() => true), turn]);
}
