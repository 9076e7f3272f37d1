import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { gumbel } from "../../src/backends/reference/rng.ts";
import { keepMinP, keepTopK, keepTopP, logprobs } from "../../src/backends/reference/sampler.ts";
import { KernelCache } from "../../src/backends/webgpu/kernel.ts";
import {
  createSamplerBuffers,
  createSamplerKernel,
  samplerKernelNames,
} from "../../src/backends/webgpu/samplerKernels.ts";
import { expandShader } from "../../src/backends/webgpu/shader.ts";
import type { SamplingParams } from "../../src/engine/sampling.ts";
import { GREEDY, MAX_LOGIT_BIAS, MAX_LOGPROBS } from "../../src/engine/sampling.ts";
import { NO_TOKEN, type SlotReset } from "../../src/engine/step.ts";
import { openDevice, testedIcd } from "./device.ts";
import {
  configurations,
  countsOf,
  createRandom,
  randomLogits,
  randomTokens,
  seeded,
  shapes,
  shuffle,
} from "./samplerCases.ts";
import { judge, SamplerHarness, type TestSample, type Verdict } from "./samplerHarness.ts";

const COMPILE_LIMIT_MS = 2000;
/** f32 sums of 2^16 exponentials and one logarithm. */
const LOGPROB_TOLERANCE = 2e-5;

let device: GPUDevice;
const errors: string[] = [];

beforeAll(async () => {
  device = await openDevice();
  device.addEventListener("uncapturederror", (event) => errors.push(event.error.message));
});

afterAll(() => {
  device.destroy();
  expect(errors).toEqual([]);
});

describe(`sampling on ${testedIcd}`, () => {
  test("each kernel compiles within two seconds", async () => {
    // Drivers keep compiled shaders: a size that hardly a run had before makes them compile again.
    // Some compile at the first dispatch. CPU time, since others may be using the cores.
    const sizes = { vocabularySize: 257 + Math.floor(Math.random() * 2 ** 16), maxSequences: 3 };
    const storage = { usage: GPUBufferUsage.STORAGE | GPUBufferUsage.UNIFORM };
    const inputs = {
      logits: device.createBuffer({ size: 4 * 3 * sizes.vocabularySize, ...storage }),
      stepBuffer: device.createBuffer({ size: 512, ...storage }),
      lastTokens: device.createBuffer({ size: 4 * 3, ...storage }),
    };
    const kernels = new KernelCache(device);
    const buffers = await createSamplerBuffers(device, sizes);
    for (const name of samplerKernelNames) {
      const start = process.cpuUsage();
      const kernel = await createSamplerKernel(kernels, name, sizes, inputs, buffers);
      const encoder = device.createCommandEncoder();
      const pass = encoder.beginComputePass();
      pass.setPipeline(kernel.pipeline);
      pass.setBindGroup(0, kernel.bindGroup);
      pass.dispatchWorkgroups(1);
      pass.end();
      device.queue.submit([encoder.finish()]);
      await device.queue.onSubmittedWorkDone();
      const { user, system } = process.cpuUsage(start);
      expect((user + system) / 1000, `${name}, ${sizes.vocabularySize} tokens`).toBeLessThan(
        COMPILE_LIMIT_MS,
      );
    }
    for (const buffer of [...Object.values(buffers), ...Object.values(inputs)]) buffer.destroy();
  });

  test("logarithm and Gumbel noise are accurate up to the ends of their range", async () => {
    const inputs = [1e-30, 2 ** -24, 1e-3, 0.1, 0.5, Math.SQRT1_2, 0.99, Math.SQRT2];
    inputs.push(1 - 2 ** -24, 1 - 2 ** -12, 1, 1 + 2 ** -23, 2, 16.6, 1e5, 3e38);
    const random = createRandom(3);
    while (inputs.length < 512) inputs.push(Math.exp(80 * random() - 40), 0.9 + 0.2 * random());
    const x = Float32Array.from(inputs);
    const code = `${expandShader("sample/gumbel.wgsl", {})}
      @group(0) @binding(0) var<storage, read> x: array<f32>;
      @group(0) @binding(1) var<storage, read_write> y: array<vec2<f32>>;
      @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
        if (id.x < arrayLength(&x)) {
          y[id.x] = vec2<f32>(naturalLog(x[id.x]), gumbel(id.x, 77u, 4000000000u, 5u));
        }
      }`;
    const y = new Float32Array(await runKernel(code, x, 2 * x.byteLength));
    x.forEach((value, i) => {
      const expected = Math.log(value);
      expect(Math.abs(y[2 * i]! - expected), `ln ${value}`).toBeLessThanOrEqual(
        1e-6 * Math.abs(expected),
      );
      const noise = gumbel(i, 77, [4_000_000_000, 5]);
      expect(Math.abs(y[2 * i + 1]! - noise), `noise ${i}`).toBeLessThan(5e-6);
    });
  });

  async function runKernel(
    code: string,
    input: Float32Array<ArrayBuffer>,
    outputBytes: number,
  ): Promise<ArrayBuffer> {
    const pipeline = await device.createComputePipelineAsync({
      layout: "auto",
      compute: { module: device.createShaderModule({ code }) },
    });
    const { STORAGE, COPY_DST, COPY_SRC, MAP_READ } = GPUBufferUsage;
    const source = device.createBuffer({ size: input.byteLength, usage: STORAGE | COPY_DST });
    const output = device.createBuffer({ size: outputBytes, usage: STORAGE | COPY_SRC });
    const readback = device.createBuffer({ size: outputBytes, usage: MAP_READ | COPY_DST });
    device.queue.writeBuffer(source, 0, input);
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(
      0,
      device.createBindGroup({
        layout: pipeline.getBindGroupLayout(0),
        entries: [source, output].map((buffer, binding) => ({ binding, resource: { buffer } })),
      }),
    );
    pass.dispatchWorkgroups(Math.ceil(input.length / 64));
    pass.end();
    encoder.copyBufferToBuffer(output, 0, readback, 0, outputBytes);
    device.queue.submit([encoder.finish()]);
    await readback.mapAsync(GPUMapMode.READ);
    return readback.getMappedRange().slice(0);
  }

  // [vocabulary, steps]; each step samples every configuration once
  test.each([
    [1, 2],
    [2, 6],
    [257, 18],
    [1000, 12],
    [49_152, 2],
  ])(
    "every configuration agrees with float64 over %i tokens",
    async (size, numSteps) => {
      const random = createRandom(size);
      const maxSequences = configurations(size, random).length + 3;
      const harness = await SamplerHarness.create(device, size, maxSequences);
      const verdicts: Record<Verdict, number> = { equal: 0, near: 0, wrong: 0 };
      for (let step = 0; step < numSteps; step++) {
        const shape = shapes[step % shapes.length]!;
        const slots = shuffle([...Array(maxSequences).keys()], random);
        const resets = configurations(size, random).map(
          (sampling, i): SlotReset => ({
            slot: slots[i]!,
            sampling,
            promptTokens: randomTokens(30, size, random),
            outputTokens: randomTokens(20, size, random),
          }),
        );
        const order = shuffle([...resets], random);
        const samples = order.map(({ slot }) => ({
          slot,
          position: Math.floor(random() * 4096),
          logits: randomLogits(shape, size, random),
        }));
        const result = await harness.run(resets, samples);
        order.forEach((reset, i) => {
          const { logits, position, slot } = samples[i]!;
          const token = result.tokens[i]!;
          const verdict = judge(token, logits, reset.sampling, countsOf(reset), position);
          verdicts[verdict]++;
          expect(verdict, `${shape} ${JSON.stringify(reset.sampling)} gave ${token}`).not.toBe(
            "wrong",
          );
          expect(result.lastTokens[slot]).toBe(token);
        });
      }
      harness.dispose();
      expect(verdicts.near).toBeLessThanOrEqual(0.02 * verdicts.equal);
    },
    60_000,
  );

  test("greedy ties go to the lowest id, wherever they lie", async () => {
    const size = 20_011;
    const harness = await SamplerHarness.create(device, size, 4);
    const ties = [
      [0, 1, size - 1],
      [63, 64, 8192],
      [8191, 8192, 20_000],
      [size - 2, size - 1],
    ];
    const resets = ties.map((_, slot) => ({
      slot,
      sampling: { ...GREEDY, logprobs: 2 },
      promptTokens: [],
      outputTokens: [],
    }));
    const samples = ties.map((ids, slot) => {
      const logits = new Float32Array(size).fill(-3);
      for (const id of ids) logits[id] = 2.5;
      return { slot, position: 1, logits };
    });
    const result = await harness.run(resets, samples);
    expect(result.tokens).toEqual(ties.map((ids) => ids[0]));
    expect(result.logprobs.map((entry) => entry?.top.map((one) => one.token))).toEqual(
      ties.map((ids) => ids.slice(0, 2)),
    );
    harness.dispose();
  });

  test("zeros of both signs tie for top-k", async () => {
    const numSlots = 64;
    const harness = await SamplerHarness.create(device, 2, numSlots);
    const resets = Array.from(
      { length: numSlots },
      (_, slot): SlotReset => ({
        slot,
        sampling: { ...GREEDY, temperature: 1, topK: 1, seed: [slot, 1] },
        promptTokens: [],
        outputTokens: [],
      }),
    );
    const logits = Float32Array.of(0, -0);
    const { tokens } = await harness.run(
      resets,
      resets.map(({ slot }) => ({ slot, position: 1, logits })),
    );
    expect(new Set(tokens)).toEqual(new Set([0, 1]));
    harness.dispose();
  });

  test("logits beyond reason still give a token and never a wrong one; those of which none is finite give none", async () => {
    const size = 300;
    const on = { ...GREEDY, temperature: 1 };
    const all: SamplingParams[] = [
      GREEDY,
      on,
      { ...on, topK: 3, topP: 0.5, minP: 0.1, logprobs: 3 },
    ];
    const harness = await SamplerHarness.create(device, size, all.length);
    const resets = all.map((sampling, slot) => ({
      slot,
      sampling,
      promptTokens: [],
      outputTokens: [],
    }));
    const peak = new Float32Array(size).fill(-3e38);
    peak[123] = 3e38;
    const masked = new Float32Array(size).fill(-Infinity);
    masked[299] = 1;
    for (const [logits, expected] of [
      [peak, 123],
      [masked, 299],
    ] as const) {
      const { tokens } = await harness.run(
        resets,
        resets.map(({ slot }) => ({ slot, position: 9, logits })),
      );
      expect(tokens).toEqual(all.map(() => expected));
    }
    for (const value of [Number.NaN, Infinity, -Infinity]) {
      const logits = new Float32Array(size).fill(value);
      const { tokens, lastTokens } = await harness.run(
        resets,
        resets.map(({ slot }) => ({ slot, position: 9, logits })),
      );
      expect(tokens).toEqual(all.map(() => NO_TOKEN));
      // Steps that are in flight already go on with some token.
      for (const token of lastTokens) expect(token).toBeLessThan(size);
    }
    // And nothing of it is left for the next step.
    const logits = randomLogits("normal", size, createRandom(5));
    const after = await harness.run(
      [],
      resets.map(({ slot }) => ({ slot, position: 9, logits })),
    );
    after.tokens.forEach((token, i) => {
      const counts = { prompt: new Set<number>(), output: new Map<number, number>() };
      expect(judge(token, logits, all[i]!, counts, 9)).not.toBe("wrong");
    });
    harness.dispose();
  });

  test("log-probabilities agree with float64 for every count", async () => {
    for (const size of [1, 7, 257, 10_007]) {
      const random = createRandom(size + 1);
      const numSlots = MAX_LOGPROBS + 2;
      const harness = await SamplerHarness.create(device, size, numSlots);
      for (const shape of shapes) {
        // Slot n asks for n; the last asks for none.
        const resets = Array.from(
          { length: numSlots },
          (_, slot): SlotReset => ({
            slot,
            sampling: {
              ...GREEDY,
              temperature: slot % 3,
              topK: slot % 2,
              seed: seeded(random),
              logprobs: slot <= MAX_LOGPROBS ? slot : undefined,
              logitBias: slot % 5 === 0 ? [[0, 50]] : [], // must not show in the log-probabilities
            },
            promptTokens: [],
            outputTokens: [],
          }),
        );
        const samples = resets.map(({ slot }) => ({
          slot,
          position: slot,
          logits: randomLogits(shape, size, random),
        }));
        const result = await harness.run(resets, samples);
        samples.forEach(({ logits, slot }, i) => {
          const actual = result.logprobs[i];
          if (slot > MAX_LOGPROBS) {
            expect(actual).toBeUndefined();
            return;
          }
          const expected = logprobs(logits, result.tokens[i]!, slot);
          expect(actual!.top.map((one) => one.token)).toEqual(expected.top.map((one) => one.token));
          const pairs = [[actual!.logprob, expected.logprob]];
          actual!.top.forEach((one, j) => {
            pairs.push([one.logprob, expected.top[j]!.logprob]);
          });
          for (const [got, want] of pairs) {
            expect(Math.abs(got! - want!)).toBeLessThan(LOGPROB_TOLERANCE);
          }
        });
      }
      harness.dispose();
    }
  });

  test("penalties follow the tokens sampled, through resets and steps with other samples", async () => {
    const size = 61;
    const numSlots = 6;
    const random = createRandom(11);
    const harness = await SamplerHarness.create(device, size, numSlots);
    const slots: (SlotReset | undefined)[] = Array(numSlots).fill(undefined);
    const outputs: number[][] = Array.from({ length: numSlots }, () => []);
    let numEqual = 0;
    let numJudged = 0;
    for (let step = 0; step < 60; step++) {
      const resets: SlotReset[] = [];
      for (let slot = 0; slot < numSlots; slot++) {
        if (slots[slot] !== undefined && random() > 0.07) continue;
        outputs[slot] = randomTokens(Math.floor(random() * 4), size, random);
        const reset: SlotReset = {
          slot,
          sampling: {
            ...GREEDY,
            temperature: slot % 2,
            repetitionPenalty: slot < 4 ? 1.2 : 1,
            frequencyPenalty: slot === 4 ? 0.9 : 0.1,
            presencePenalty: slot === 3 ? 1 : 0,
            topK: slot === 1 ? 12 : 0,
            logitBias: slot === 2 ? [[5, 1]] : [],
            seed: seeded(random),
          },
          promptTokens: randomTokens(10, size, random),
          outputTokens: [...outputs[slot]!],
        };
        slots[slot] = reset;
        resets.push(reset);
      }
      const logits = randomLogits("tied", size, random);
      const active = shuffle([...Array(numSlots).keys()], random).filter(() => random() < 0.7);
      const samples = active.map((slot) => ({ slot, position: 100 + step, logits }));
      const { tokens } = await harness.run(resets, samples);
      active.forEach((slot, i) => {
        const reset = { ...slots[slot]!, outputTokens: outputs[slot]! };
        const token = tokens[i]!;
        const verdict = judge(token, logits, reset.sampling, countsOf(reset), 100 + step);
        expect(verdict, `step ${step}, slot ${slot}`).not.toBe("wrong");
        numJudged++;
        if (verdict === "equal") numEqual++;
        outputs[slot]!.push(token);
      });
    }
    expect(numEqual).toBeGreaterThan(0.95 * numJudged);
    harness.dispose();
  });

  test("a sample's outcome does not depend on its company, its place or its slot, bit for bit", async () => {
    const size = 1009;
    const random = createRandom(21);
    const all = configurations(size, random).map((params, i) =>
      i % 4 === 0 ? { ...params, logprobs: i % (MAX_LOGPROBS + 1) } : params,
    );
    const harness = await SamplerHarness.create(device, size, all.length);
    const sequences = all.map((sampling, i) => ({
      sampling,
      promptTokens: randomTokens(20, size, random),
      outputTokens: randomTokens(9, size, random),
      position: 31 * i,
      logits: randomLogits(shapes[i % shapes.length]!, size, random),
    }));
    type Sequence = (typeof sequences)[number];
    const run = async (group: readonly Sequence[]) => {
      const slots = shuffle([...Array(all.length).keys()], random);
      const resets = group.map((sequence, i) => ({ ...sequence, slot: slots[i]! }));
      const samples: TestSample[] = resets;
      const { tokens, logprobs: records } = await harness.run(resets, samples);
      return group.map((_, i) => ({ token: tokens[i], logprobs: records[i] }));
    };
    const alone: unknown[] = [];
    for (const sequence of sequences) alone.push((await run([sequence]))[0]);
    for (let round = 0; round < 6; round++) {
      const order = shuffle([...sequences.keys()], random).slice(0, round < 2 ? undefined : 5);
      const together = await run(order.map((i) => sequences[i]!));
      order.forEach((i, at) => {
        expect(together[at], JSON.stringify(all[i])).toEqual(alone[i]);
      });
    }
    harness.dispose();
  });

  test.each([
    ["the whole vocabulary", {}],
    ["top-p", { topP: 0.75 }],
    ["top-k and temperature", { topK: 9, temperature: 1.6 }],
    ["min-p", { minP: 0.2 }],
  ])("draws follow the distribution over %s", async (_, filter) => {
    const size = 40;
    const numSlots = 64;
    const numSteps = 80;
    const params: SamplingParams = { ...GREEDY, temperature: 1, ...filter };
    const logits = randomLogits("normal", size, createRandom(31)).map((x) => x / 3);
    const scaled = Float64Array.from(logits, (x) => x / params.temperature);
    const kept = keepTopP(keepTopK(keepMinP(scaled, params.minP), params.topK), params.topP);
    const weights = kept.map((x) => Math.exp(x));
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    const harness = await SamplerHarness.create(device, size, numSlots);
    const resets = Array.from(
      { length: numSlots },
      (_, slot): SlotReset => ({
        slot,
        sampling: { ...params, seed: [slot, 0] },
        promptTokens: [],
        outputTokens: [],
      }),
    );
    const counts = new Array<number>(size).fill(0);
    for (let step = 0; step < numSteps; step++) {
      const samples = resets.map(({ slot }) => ({ slot, position: step, logits }));
      const { tokens } = await harness.run(step === 0 ? resets : [], samples);
      for (const token of tokens) counts[token]!++;
    }
    let statistic = 0;
    let freedom = -1;
    weights.forEach((weight, token) => {
      if (weight === 0) {
        expect(counts[token]).toBe(0);
        return;
      }
      const expected = (numSlots * numSteps * weight) / total;
      statistic += (counts[token]! - expected) ** 2 / expected;
      freedom++;
    });
    // Wilson and Hilferty's bound for 3.7 standard deviations, a chance of 1e-4.
    const spread = 2 / (9 * freedom);
    expect(freedom).toBeGreaterThan(3);
    expect(statistic).toBeLessThan(freedom * (1 - spread + 3.7 * Math.sqrt(spread)) ** 3);
    harness.dispose();
  });

  test("a step costs only the dispatches that its samples ask for", async () => {
    const harness = await SamplerHarness.create(device, 500, 2);
    const on = { ...GREEDY, temperature: 1 };
    const cases: [SamplingParams, number][] = [
      [GREEDY, 2],
      [on, 2],
      [{ ...GREEDY, topK: 5, topP: 0.5, minP: 0.1 }, 2],
      [{ ...on, topK: 500 }, 2],
      [{ ...GREEDY, presencePenalty: 1 }, 3],
      [{ ...on, logitBias: [[1, 1]] }, 3],
      [{ ...on, minP: 0.1 }, 4],
      [{ ...on, topK: 5 }, 12],
      [{ ...on, topP: 0.5 }, 12],
      [{ ...on, topK: 5, topP: 0.5 }, 20],
      [{ ...GREEDY, logprobs: 0 }, 4],
      [{ ...on, topP: 0.5, logprobs: 20 }, 14],
    ];
    const logits = randomLogits("normal", 500, createRandom(1));
    for (const [sampling, expected] of cases) {
      const reset = { slot: 1, sampling, promptTokens: [], outputTokens: [] };
      await harness.run([reset], [{ slot: 1, position: 3, logits }]);
      expect(harness.numDispatches, JSON.stringify(sampling)).toBe(expected);
    }
    harness.dispose();
  });

  test("biases that cannot be applied are refused", async () => {
    const harness = await SamplerHarness.create(device, 10, 1);
    const reset = (logitBias: SamplingParams["logitBias"]): SlotReset[] => [
      { slot: 0, sampling: { ...GREEDY, logitBias }, promptTokens: [], outputTokens: [] },
    ];
    expect(() => harness.sampler.resetSlots(reset([[10, 1]]))).toThrow("ids 0 to 9");
    expect(() => harness.sampler.resetSlots(reset([[1.5, 1]]))).toThrow("token 1.5");
    const many = Array.from({ length: MAX_LOGIT_BIAS + 1 }, () => [1, 1] as const);
    expect(() => harness.sampler.resetSlots(reset(many))).toThrow(String(MAX_LOGIT_BIAS));
    harness.dispose();
  });
});
