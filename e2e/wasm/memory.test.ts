import { afterEach, describe, expect, test, vi } from "vitest";
import { recordForward } from "../../src/model/forward.ts";
import { loadWeights } from "../../src/model/loadWeights.ts";
import { openModel } from "../../src/model/model.ts";
import { planSpec } from "../../src/model/planSpec.ts";
import { createBufferSource } from "../../src/weights/bufferSource.ts";
import type { ByteSource } from "../../src/weights/byteSource.ts";
import type { TensorInfo } from "../../src/weights/tensorType.ts";
import { makePlan, makeStep } from "../fixtures/drivePlan.ts";
import { makeTinyModel } from "../fixtures/tinyModel.ts";
import { EngineDriver, request } from "../suites/engineDriver.ts";
import { openWasm } from "./openWasm.ts";

const GIB = 2 ** 30;

afterEach(() => {
  vi.unstubAllGlobals();
});

describe("memory", () => {
  test("a model over 4 GiB is a coded error with the numbers", async () => {
    const backend = await openWasm("fast");
    const model = await openModel(createBufferSource(makeTinyModel({ layers: 1 }), "tiny"));
    const spec = planSpec(model.config, {});
    const builder = backend.createPlanBuilder({ ...spec, vocabularySize: 2 ** 20 });
    const table: TensorInfo = {
      ...model.tensors.embedding,
      type: "F32",
      rows: 2 ** 20,
      columns: 8192,
    };
    recordForward(builder, { tensors: { ...model.tensors, embedding: table, head: table } });
    await expect(builder.finish()).rejects.toMatchObject({
      code: "out-of-memory",
      message: expect.stringMatching(/weights \d+, KV pool \d+ at the least.*at most 4294967296/),
      data: { limit: 4 * GIB },
    });
  });

  test("a pool that does not fit beside the model is made smaller, and works", async () => {
    const backend = await openWasm("fast");
    const gguf = makeTinyModel({ layers: 2 });
    const small = await makePlan(gguf, { kvBlocks: 8 }, backend);
    const perBlock = small.memory.kvPool / small.numBlocks;
    const kvBlocks = Math.ceil((6 * GIB) / perBlock);
    const plan = await makePlan(gguf, { kvBlocks }, backend);
    expect(plan.numBlocks).toBe(Math.floor(kvBlocks / 2));
    const last = plan.numBlocks - 1;
    // Its addresses are above 2^31.
    const rows = { slot: 0, tokens: [1, 2, 3], start: 0, blocks: [last], isSampled: true };
    const few = { ...rows, blocks: [7] };
    const { tokens } = await plan.submit(makeStep(0, 16, [rows])).result;
    expect(tokens).toEqual((await small.submit(makeStep(0, 16, [few])).result).tokens);
    expect(await plan.readLogits()).toEqual(await small.readLogits());
    backend.dispose();
  });

  test("where swaps find no host memory, the engine swaps no more and says the same", async () => {
    const backend = await openWasm("fast");
    const plan = await makePlan(makeTinyModel({ layers: 2 }), { kvBlocks: 32 }, backend);
    const options = { blockSize: 16, maxSequences: 4, numHostBlocks: 64 };
    const requests = Array.from({ length: 4 }, (_, i) => {
      const prompt = Array.from({ length: 30 }, (_, at) => 3 + ((at * 7 + i * 31) % 290));
      return request(i, prompt, { maxTokens: 40 });
    });
    const roomy = await new EngineDriver(plan, { ...options, numBlocks: 32 }).run(requests);
    expect(roomy.engine.stats().preemptions).toBe(0);

    // There is memory for the first four blocks; then Firefox would throw this string.
    const { blockBytes } = plan;
    let numBlocks = 0;
    const Scarce = new Proxy(Uint8Array, {
      construct(target, args) {
        if (args[0] === blockBytes && ++numBlocks > 4) throw "out of memory";
        return Reflect.construct(target, args);
      },
    });
    vi.stubGlobal("Uint8Array", Scarce);
    const crowded = await new EngineDriver(plan, { ...options, numBlocks: 10 }).run(requests);
    expect(crowded.said).toEqual(roomy.said);
    expect(numBlocks).toBeGreaterThan(4);
    const off = crowded.engine.events().filter((event) => event.kind === "swap-off");
    expect(off).toMatchObject([{ why: expect.stringContaining(`of ${blockBytes} bytes`) }]);
    const later = crowded.steps.filter(({ id }) => id > off[0]!.stepId);
    expect(later.flatMap(({ swapOuts }) => swapOuts)).toEqual([]);
    backend.dispose();
  });

  test("a file that ends while it is repacked rejects, and the next model loads", async () => {
    const backend = await openWasm("fast");
    const gguf = makeTinyModel({ layers: 2 });
    const whole = createBufferSource(gguf, "tiny");
    const model = await openModel(whole);
    const builder = backend.createPlanBuilder(planSpec(model.config, { kvBlocks: 8 }));
    recordForward(builder, model);
    const plan = await builder.finish();
    const cut = gguf.length - 20_000;
    const source: ByteSource = {
      ...whole,
      read: (offset, length, signal) =>
        offset + length > cut
          ? Promise.reject(new Error("the file ends here"))
          : whole.read(offset, length, signal),
    };
    await expect(loadWeights(plan, source)).rejects.toThrow("the file ends here");
    plan.dispose();
    const next = await makePlan(gguf, { kvBlocks: 8 }, backend);
    const rows = { slot: 0, tokens: [1], start: 0, blocks: [0], isSampled: true };
    expect((await next.submit(makeStep(0, 16, [rows])).result).tokens).toHaveLength(1);
    await expect(plan.submit(makeStep(0, 16, [rows])).result).rejects.toMatchObject({
      code: "disposed",
    });
    backend.dispose();
  });
});
