import { MAX_LOGIT_BIAS, MAX_LOGPROBS } from "../../engine/sampling.ts";
import { QuireError } from "../../errors.ts";
import { slotFlags, slotWords, tokenStateBits } from "../slotRecord.ts";
import { expandShader } from "./shader.ts";

/** Threads of a workgroup of the kernels that walk the vocabulary. */
const WORKGROUP = 64;
/** Tokens of a chunk: near the square root of a usual vocabulary, so both levels of an argmax are short. */
const CHUNK_TOKENS = 128;
/** Tokens a thread of `histogram`, which has no second level. */
const HISTOGRAM_TOKENS = 16;
/** Threads of a workgroup of the kernels with one thread a sample: few, to spread samples over cores. */
const SAMPLE_WORKGROUP = 8;
const GROUP_CHUNKS = 32;
/** Words of log-probabilities in the results: the token's own, its rank, then (token, logprob) pairs. */
export const RECORD_WORDS = 2 + 2 * MAX_LOGPROBS;
/** Masses of so many equal best tokens still sum in 64 bits (see histogram.wgsl). */
export const MAX_VOCABULARY = 2 ** 19;
/** Bytes of the step buffer that are bound as the uniform header. */
export const STEP_HEADER_BYTES = 256;

export interface SamplerSizes {
  readonly vocabularySize: number;
  readonly maxSequences: number;
}

/** Buffers that belong to the plan. Shapes are in the comments of `SamplerOptions`. */
export interface SamplerInputs {
  readonly stepBuffer: GPUBuffer;
  readonly logits: GPUBuffer;
  readonly lastTokens: GPUBuffer;
}

/** Buffers that belong to the sampler. */
export interface SamplerBuffers {
  readonly slotRecords: GPUBuffer; // u32 [maxSequences][SLOT_WORDS], by slot
  readonly tokenState: GPUBuffer; // u32 [maxSequences][vocabularySize], by slot
  readonly biases: GPUBuffer; // {u32 id, f32 bias} [maxSequences][MAX_LOGIT_BIAS], by slot
  readonly scaled: GPUBuffer; // f32 [maxSequences][vocabularySize], by sample
  readonly chunkBest: GPUBuffer; // {f32, u32 token} [maxSequences][numChunks], by sample
  readonly selections: GPUBuffer; // Selection [maxSequences], by sample
  readonly bins: GPUBuffer; // {u32 low, u32 high} [maxSequences][256], by sample
  readonly chunkSums: GPUBuffer; // {f32, u32 token, f32 sum, u32} [maxSequences][numChunks], by sample or score
  readonly groupBest: GPUBuffer; // {f32, u32 chunk} [maxSequences][numGroups], by sample or score
  readonly results: GPUBuffer; // u32 [maxSequences] ids by sample, then [maxSequences][RECORD_WORDS] by sample or score
}

/** A pipeline with its bind group; the grid is (groups, samples) or one thread a sample. */
export interface SamplerKernel {
  readonly pipeline: GPUComputePipeline;
  readonly bindGroup: GPUBindGroup;
  /** Workgroups along x; undefined = one thread a sample. */
  readonly groups: number | undefined;
}

type Access = "read" | "write";
type KernelBinding = readonly [buffer: keyof SamplerBuffers | "logits" | "lastTokens", Access];

// Bindings from 3 on; 0 to 2 are the step's header, the step's words and the slots' records.
const kernelBindings = {
  adjust: [
    ["logits", "read"],
    ["tokenState", "read"],
    ["biases", "read"],
    ["scaled", "write"],
    ["chunkBest", "write"],
  ],
  bound: [
    ["chunkBest", "read"],
    ["selections", "write"],
  ],
  histogram: [
    ["scaled", "read"],
    ["selections", "read"],
    ["bins", "write"],
  ],
  pick: [
    ["selections", "write"],
    ["bins", "write"],
  ],
  choose: [
    ["logits", "read"],
    ["scaled", "read"],
    ["selections", "read"],
    ["chunkBest", "write"],
  ],
  merge: [
    ["chunkBest", "read"],
    ["results", "write"],
    ["lastTokens", "write"],
    ["tokenState", "write"],
  ],
  logSum: [
    ["logits", "read"],
    ["chunkSums", "write"],
  ],
  logprobs: [
    ["logits", "read"],
    ["results", "write"],
    ["chunkSums", "write"],
    ["groupBest", "write"],
  ],
} as const satisfies Record<string, readonly KernelBinding[]>;

export type SamplerKernelName = keyof typeof kernelBindings;
export type SamplerKernels = Readonly<Record<SamplerKernelName, SamplerKernel>>;

export const samplerKernelNames = Object.keys(kernelBindings) as SamplerKernelName[];

function numChunks(sizes: SamplerSizes): number {
  return WORKGROUP * Math.ceil(sizes.vocabularySize / (WORKGROUP * CHUNK_TOKENS));
}

/** Workgroups along x for each kernel. */
function groupsOf(name: SamplerKernelName, sizes: SamplerSizes): number | undefined {
  if (name === "adjust" || name === "choose" || name === "logSum") {
    return numChunks(sizes) / WORKGROUP;
  }
  if (name === "histogram") return Math.ceil(sizes.vocabularySize / (WORKGROUP * HISTOGRAM_TOKENS));
  return undefined;
}

/** Workgroups of a kernel with one thread a sample. */
export function sampleGroups(numSamples: number): number {
  return Math.ceil(numSamples / SAMPLE_WORKGROUP);
}

/** WGSL of one kernel. */
function samplerShader(name: SamplerKernelName, sizes: SamplerSizes): string {
  return expandShader(`sample/${name}.wgsl`, {
    VOCABULARY: sizes.vocabularySize,
    MAX_SEQUENCES: sizes.maxSequences,
    NUM_CHUNKS: numChunks(sizes),
    WORKGROUP,
    CHUNK_TOKENS,
    HISTOGRAM_TOKENS,
    SAMPLE_WORKGROUP,
    GROUP_CHUNKS,
    RECORD_WORDS,
    MAX_BIAS: MAX_LOGIT_BIAS,
    ...slotWords,
    ...slotFlags,
    ...tokenStateBits,
  });
}

/** Allocates the sampler's buffers, zeroed. Throws `webgpu-limits` where one cannot be bound whole. */
export function createSamplerBuffers(device: GPUDevice, sizes: SamplerSizes): SamplerBuffers {
  const { maxSequences, vocabularySize } = sizes;
  const chunks = numChunks(sizes);
  const limit = Math.min(device.limits.maxStorageBufferBindingSize, device.limits.maxBufferSize);
  const buffer = (name: string, wordsPerSequence: number, usage = 0): GPUBuffer => {
    const size = 4 * wordsPerSequence * maxSequences;
    if (size > limit) {
      throw new QuireError(
        "webgpu-limits",
        `Sampling ${maxSequences} sequences over ${vocabularySize} tokens needs a buffer of ${size} bytes; ` +
          `the device binds ${limit}. Lower maxSequences.`,
        { size, limit, maxSequences, vocabularySize },
      );
    }
    return device.createBuffer({
      label: `sampler.${name}`,
      size,
      usage: GPUBufferUsage.STORAGE | usage,
    });
  };
  return {
    slotRecords: buffer("slotRecords", slotWords.SLOT_WORDS, GPUBufferUsage.COPY_DST),
    tokenState: buffer("tokenState", vocabularySize, GPUBufferUsage.COPY_DST),
    biases: buffer("biases", 2 * MAX_LOGIT_BIAS, GPUBufferUsage.COPY_DST),
    scaled: buffer("scaled", vocabularySize),
    chunkBest: buffer("chunkBest", 2 * chunks),
    selections: buffer("selections", 8, GPUBufferUsage.COPY_SRC), // its test reads it
    bins: buffer("bins", 2 * 256),
    chunkSums: buffer("chunkSums", 4 * chunks),
    groupBest: buffer("groupBest", 2 * Math.ceil(chunks / GROUP_CHUNKS)),
    results: buffer("results", 1 + RECORD_WORDS, GPUBufferUsage.COPY_SRC),
  };
}

/** Compiles all kernels at once and binds them for good. */
export async function createSamplerKernels(
  device: GPUDevice,
  sizes: SamplerSizes,
  inputs: SamplerInputs,
  buffers: SamplerBuffers,
): Promise<SamplerKernels> {
  const kernels = await Promise.all(
    samplerKernelNames.map(async (name) => {
      const kernel = await createSamplerKernel(device, name, sizes, inputs, buffers);
      return [name, kernel] as const;
    }),
  );
  return Object.fromEntries(kernels) as Record<SamplerKernelName, SamplerKernel>;
}

/** Compiles one kernel and binds it. */
export async function createSamplerKernel(
  device: GPUDevice,
  name: SamplerKernelName,
  sizes: SamplerSizes,
  inputs: SamplerInputs,
  buffers: SamplerBuffers,
): Promise<SamplerKernel> {
  const layout = createLayout(device, name);
  return {
    pipeline: await createPipeline(device, name, layout, samplerShader(name, sizes)),
    bindGroup: createBindGroup(device, name, layout, inputs, buffers),
    groups: groupsOf(name, sizes),
  };
}

function createLayout(device: GPUDevice, name: SamplerKernelName): GPUBindGroupLayout {
  const types: GPUBufferBindingType[] = ["uniform", "read-only-storage", "read-only-storage"];
  for (const [, access] of kernelBindings[name]) {
    types.push(access === "read" ? "read-only-storage" : "storage");
  }
  return device.createBindGroupLayout({
    label: `sampler.${name}`,
    entries: types.map((type, binding) => ({
      binding,
      visibility: GPUShaderStage.COMPUTE,
      buffer: { type },
    })),
  });
}

function createBindGroup(
  device: GPUDevice,
  name: SamplerKernelName,
  layout: GPUBindGroupLayout,
  inputs: SamplerInputs,
  buffers: SamplerBuffers,
): GPUBindGroup {
  const all = { ...buffers, ...inputs };
  const resources: GPUBufferBinding[] = [
    { buffer: inputs.stepBuffer, offset: 0, size: STEP_HEADER_BYTES },
    { buffer: inputs.stepBuffer },
    { buffer: buffers.slotRecords },
    ...kernelBindings[name].map(([buffer]) => ({ buffer: all[buffer] })),
  ];
  return device.createBindGroup({
    label: `sampler.${name}`,
    layout,
    entries: resources.map((resource, binding) => ({ binding, resource })),
  });
}

function createPipeline(
  device: GPUDevice,
  name: SamplerKernelName,
  layout: GPUBindGroupLayout,
  code: string,
): Promise<GPUComputePipeline> {
  const label = `sampler.${name}`;
  return device.createComputePipelineAsync({
    label,
    layout: device.createPipelineLayout({ label, bindGroupLayouts: [layout] }),
    compute: { module: device.createShaderModule({ label, code }), entryPoint: "main" },
  });
}
