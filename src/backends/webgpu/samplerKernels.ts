import { MAX_LOGIT_BIAS, MAX_LOGPROBS } from "../../engine/sampling.ts";
import { QuireError } from "../../errors.ts";
import { slotFlags, slotWords, tokenStateBits } from "../slotRecord.ts";
import { type KernelCache, type Resource, read, uniform, write } from "./kernel.ts";
import { allocate } from "./outOfMemory.ts";
import type { ShaderConstants } from "./shader.ts";

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
const MAX_VOCABULARY = 2 ** 19;
/** Bytes of the step buffer that are bound as the uniform header. */
const STEP_HEADER_BYTES = 256;

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
    ["logits", "read"],
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

/**
 * Allocates the sampler's buffers, zeroed. Throws `out-of-memory`, `webgpu-limits` where one cannot be bound
 * whole, and `unsupported` for a vocabulary over 2^19.
 */
export async function createSamplerBuffers(
  device: GPUDevice,
  sizes: SamplerSizes,
): Promise<SamplerBuffers> {
  const { maxSequences, vocabularySize } = sizes;
  if (vocabularySize > MAX_VOCABULARY) {
    throw new QuireError(
      "unsupported",
      `The vocabulary has ${vocabularySize} tokens; sampling on the GPU takes at most ${MAX_VOCABULARY}.`,
      { vocabularySize, max: MAX_VOCABULARY },
    );
  }
  const chunks = numChunks(sizes);
  const words: Readonly<Record<keyof SamplerBuffers, number>> = {
    slotRecords: slotWords.SLOT_WORDS,
    tokenState: vocabularySize,
    biases: 2 * MAX_LOGIT_BIAS,
    scaled: vocabularySize,
    chunkBest: 2 * chunks,
    selections: 8,
    bins: 2 * 256,
    chunkSums: 4 * chunks,
    groupBest: 2 * Math.ceil(chunks / GROUP_CHUNKS),
    results: 1 + RECORD_WORDS,
  };
  const names = Object.keys(words) as (keyof SamplerBuffers)[];
  const sizeOf = (name: keyof SamplerBuffers): number => 4 * words[name] * maxSequences;
  const size = Math.max(...names.map(sizeOf));
  const limit = Math.min(device.limits.maxStorageBufferBindingSize, device.limits.maxBufferSize);
  if (size > limit) {
    throw new QuireError(
      "webgpu-limits",
      `Sampling ${maxSequences} sequences over ${vocabularySize} tokens needs a buffer of ${size} bytes; ` +
        `the device binds ${limit}. Lower maxSequences.`,
      { size, limit, maxSequences, vocabularySize },
    );
  }
  const { STORAGE, COPY_DST, COPY_SRC } = GPUBufferUsage;
  const usage = STORAGE | COPY_DST | COPY_SRC;
  const buffers = await allocate(device, "sampling state", () =>
    names.map((name) =>
      device.createBuffer({ label: `sampler.${name}`, size: sizeOf(name), usage }),
    ),
  );
  return Object.fromEntries(names.map((name, i) => [name, buffers[i]!])) as Record<
    keyof SamplerBuffers,
    GPUBuffer
  >;
}

/** Compiles all kernels at once and binds them for good. */
export async function createSamplerKernels(
  kernels: KernelCache,
  sizes: SamplerSizes,
  inputs: SamplerInputs,
  buffers: SamplerBuffers,
): Promise<SamplerKernels> {
  const named = await Promise.all(
    samplerKernelNames.map(async (name) => {
      const kernel = await createSamplerKernel(kernels, name, sizes, inputs, buffers);
      return [name, kernel] as const;
    }),
  );
  return Object.fromEntries(named) as Record<SamplerKernelName, SamplerKernel>;
}

/** Compiles one kernel and binds it. */
export async function createSamplerKernel(
  kernels: KernelCache,
  name: SamplerKernelName,
  sizes: SamplerSizes,
  inputs: SamplerInputs,
  buffers: SamplerBuffers,
): Promise<SamplerKernel> {
  const all = { ...buffers, ...inputs };
  const resources: Record<number, Resource> = {
    0: uniform(inputs.stepBuffer, STEP_HEADER_BYTES),
    1: read(inputs.stepBuffer),
    2: read(buffers.slotRecords),
  };
  for (const [i, [buffer, access]] of kernelBindings[name].entries()) {
    resources[3 + i] = access === "read" ? read(all[buffer]) : write(all[buffer]);
  }
  const kernel = await kernels.get(`sample/${name}`, samplerConstants(sizes), resources);
  return {
    pipeline: kernel.pipeline,
    bindGroup: kernels.bind(kernel, resources),
    groups: groupsOf(name, sizes),
  };
}

function samplerConstants(sizes: SamplerSizes): ShaderConstants {
  return {
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
  };
}
