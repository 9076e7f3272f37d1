import { afterEach, beforeEach, expect, test } from "vitest";
import type { PlanSpec } from "../../src/backends/ops.ts";
import { KernelCache } from "../../src/backends/webgpu/kernel.ts";
import { LINEAR_TOKENS } from "../../src/backends/webgpu/kernelChoice.ts";
import { bufferLimits } from "../../src/backends/webgpu/limits.ts";
import { WebGpuPlanBuilder } from "../../src/backends/webgpu/planBuilder.ts";
import { recordForward } from "../../src/model/forward.ts";
import { rowByteLength, type TensorInfo, type TensorType } from "../../src/weights/tensorType.ts";
import { FAMILIES, openDevice, testedIcd } from "./device.ts";

const COMPILE_LIMIT_MS = 2000;

// Mesa keeps compiled shaders on disk. Read when Dawn opens the driver.
process.env["MESA_SHADER_CACHE_DISABLE"] = "true";

// Each attempt compiles on a device of its own: pipelines that a device still has are not compiled again.
let device: GPUDevice;
beforeEach(async () => {
  device = await openDevice();
});
afterEach(() => device.destroy());

/** Shared machines drop to half their speed for seconds at a time, and CPU time with them. */
const ATTEMPTS = { retry: 2 };

/** The default model: SmolLM2-135M-Instruct, Q4_1. */
const SPEC: PlanSpec = {
  numLayers: 1, // all layers share their pipelines
  numHeads: 9,
  numKvHeads: 3,
  headDim: 64,
  width: 576,
  vocabularySize: 49_152,
  rmsEpsilon: 1e-5,
  rope: { pairing: "adjacent", frequencies: new Float64Array(32).fill(1), magnitude: 1 },
  kvCacheDtype: "f16",
  blockSize: 16,
  numBlocks: 64,
  minBlocks: 64,
  numHostBlocks: 64,
  maxSequences: 16,
  maxContext: 2048,
  maxRows: 64,
};

test.each(FAMILIES)(
  `each pipeline of the default model compiles within two seconds on ${testedIcd}, %s`,
  ATTEMPTS,
  async (family) => {
    const pipelines = recordPipelines();
    const builder = new WebGpuPlanBuilder(
      device,
      new KernelCache(device),
      bufferLimits(device),
      SPEC,
      { family, linearTokens: LINEAR_TOKENS },
    );
    recordForward(builder, { tensors: smolLm2Tensors() });
    const plan = await builder.finish();
    const times: Record<string, number> = {};
    for (const { label, entries, pipeline, creationMs } of pipelines) {
      // Some drivers compile at the first dispatch. All buffers are zero: there is no work in them.
      const bindGroup = device.createBindGroup({
        layout: pipeline.getBindGroupLayout(0),
        entries: entries.map(({ binding, buffer }) => ({
          binding,
          resource: {
            buffer: device.createBuffer({
              size: buffer?.type === "uniform" ? 256 : 65_536,
              usage: GPUBufferUsage.UNIFORM | GPUBufferUsage.STORAGE,
            }),
          },
        })),
      });
      const start = process.cpuUsage();
      const encoder = device.createCommandEncoder();
      const pass = encoder.beginComputePass();
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, bindGroup);
      pass.dispatchWorkgroups(1);
      pass.end();
      device.queue.submit([encoder.finish()]);
      await device.queue.onSubmittedWorkDone();
      times[label] = creationMs + cpuMs(start);
    }
    plan.dispose();
    const slow = Object.entries(times).filter(([, ms]) => ms >= COMPILE_LIMIT_MS);
    console.info(
      JSON.stringify(
        Object.entries(times)
          .sort((a, b) => b[1] - a[1])
          .slice(0, 12),
      ),
    );
    expect(slow).toEqual([]);
  },
);

interface RecordedPipeline {
  readonly label: string;
  readonly entries: readonly GPUBindGroupLayoutEntry[];
  readonly pipeline: GPUComputePipeline;
  readonly creationMs: number;
}

/** From now on: every pipeline of the device, created one after the other, with the CPU time of each. */
function recordPipelines(): readonly RecordedPipeline[] {
  const pipelines: RecordedPipeline[] = [];
  const entriesOf = new Map<unknown, readonly GPUBindGroupLayoutEntry[]>();
  const { createBindGroupLayout, createPipelineLayout, createComputePipelineAsync } = device;
  device.createBindGroupLayout = (descriptor) => {
    const layout = createBindGroupLayout.call(device, descriptor);
    entriesOf.set(layout, [...descriptor.entries]);
    return layout;
  };
  device.createPipelineLayout = (descriptor) => {
    const layout = createPipelineLayout.call(device, descriptor);
    entriesOf.set(layout, entriesOf.get([...descriptor.bindGroupLayouts][0])!);
    return layout;
  };
  let last: Promise<unknown> = Promise.resolve();
  device.createComputePipelineAsync = (descriptor) => {
    const created = last.then(async () => {
      const start = process.cpuUsage();
      const pipeline = await createComputePipelineAsync.call(device, descriptor);
      const entries = entriesOf.get(descriptor.layout)!;
      const creationMs = cpuMs(start);
      pipelines.push({ label: descriptor.label!, entries, pipeline, creationMs });
      return pipeline;
    });
    last = created;
    return created;
  };
  return pipelines;
}

// CPU time, since others may be using the cores.
function cpuMs(start: NodeJS.CpuUsage): number {
  const { user, system } = process.cpuUsage(start);
  return (user + system) / 1000;
}

function smolLm2Tensors(): Parameters<typeof recordForward>[1]["tensors"] {
  const tensor = (name: string, rows: number, columns: number, type: TensorType): TensorInfo => ({
    name,
    type,
    rows,
    columns,
    byteOffset: 0,
    byteLength: rows * rowByteLength({ type, columns }),
  });
  const { width, vocabularySize, headDim, numHeads, numKvHeads } = SPEC;
  const linear = (name: string, rows: number, columns: number) => ({
    weight: tensor(name, rows, columns, "Q4_1"),
    bias: undefined,
  });
  const embedding = tensor("token_embd", vocabularySize, width, "Q8_0");
  return {
    embedding,
    layers: [
      {
        attentionNorm: tensor("attn_norm", 1, width, "F32"),
        q: linear("q", numHeads * headDim, width),
        k: linear("k", numKvHeads * headDim, width),
        v: linear("v", numKvHeads * headDim, width),
        headNorms: undefined,
        attentionOutput: linear("o", width, numHeads * headDim),
        ffnNorm: tensor("ffn_norm", 1, width, "F32"),
        gate: linear("gate", 1536, width),
        up: linear("up", 1536, width),
        down: linear("down", width, 1536),
      },
    ],
    outputNorm: tensor("output_norm", 1, width, "F32"),
    head: embedding,
  };
}
