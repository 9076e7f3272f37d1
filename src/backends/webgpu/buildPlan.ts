import { invariant, QuireError, throwIfAborted } from "../../errors.ts";
import type { TensorInfo } from "../../weights/tensorType.ts";
import type { Plan, PlanSpec } from "../ops.ts";
import type { WeightArena } from "./arena.ts";
import { copyDispatches } from "./blockCopies.ts";
import { BlockSwaps } from "./blockSwaps.ts";
import type { Dispatch } from "./dispatch.ts";
import type { KernelCache } from "./kernel.ts";
import type { KernelChoice } from "./kernelChoice.ts";
import { KvPool } from "./kvPool.ts";
import type { BufferLimits } from "./limits.ts";
import type { LinearContext } from "./linear.ts";
import { allocate, outOfMemory, watchMemory } from "./outOfMemory.ts";
import { type PlanParts, WebGpuPlan } from "./plan.ts";
import { Readback } from "./readback.ts";
import { rotationTable } from "./rotationTable.ts";
import { Sampler } from "./sampler.ts";
import { createSamplerBuffers, type SamplerBuffers } from "./samplerKernels.ts";
import { StepBuffer } from "./stepBuffer.ts";

/** What the ops of a plan share once memory is there. */
export interface BuildContext extends LinearContext {
  readonly pool: KvPool;
  readonly scratch: (name: string) => GPUBuffer;
}

/** An op of the forward pass: makes its dispatches once memory is there. */
export type RecordedOp = (context: BuildContext) => Promise<readonly Dispatch[]>;

/** A forward pass as the builder recorded it. */
export interface RecordedPass {
  readonly spec: PlanSpec;
  readonly maxRows: number;
  readonly choice: KernelChoice;
  readonly ops: readonly RecordedOp[];
  readonly arena: WeightArena;
  readonly tensors: readonly TensorInfo[];
  /** Scratch buffers by name, in bytes. */
  readonly scratchBytes: ReadonlyMap<string, number>;
}

/** All that a plan keeps in GPU memory. */
interface PlanMemory {
  readonly scratch: ReadonlyMap<string, GPUBuffer>;
  readonly stepBuffer: StepBuffer;
  readonly samplerBuffers: SamplerBuffers;
  readonly pool: KvPool;
}

/** What runs over a plan's memory. */
type Bound = Pick<PlanParts, "dispatches" | "swaps" | "sampler">;

/** Frees something; they are called in any order, at most once. */
type Release = () => void;

/** Allocates, compiles and binds a recorded pass. Frees everything if something fails. */
export async function buildPlan(
  device: GPUDevice,
  kernels: KernelCache,
  limits: BufferLimits,
  pass: RecordedPass,
  signal: AbortSignal | undefined,
): Promise<Plan> {
  throwIfAborted(signal, "Loading the model");
  const releases: Release[] = [];
  const release = (): void => {
    for (const free of releases) free();
  };
  try {
    const memory = await allocateMemory(device, limits, pass, releases);
    throwIfAborted(signal, "Loading the model");
    const readback = new Readback(device);
    releases.push(() => readback.dispose());
    const bound = await bindWatched(device, kernels, limits, pass, memory, readback);
    releases.push(() => bound.swaps.dispose());
    await readback.calibrate();
    throwIfAborted(signal, "Loading the model");
    const { spec, arena, maxRows, tensors } = pass;
    const { scratch, stepBuffer, pool } = memory;
    return new WebGpuPlan({
      device,
      arena,
      pool,
      stepBuffer,
      ...bound,
      readback,
      logits: scratch.get("logits")!,
      vocabularySize: spec.vocabularySize,
      maxRows,
      tensors,
      scratchBytes: sum([...scratch.values()].map(({ size }) => size)),
      release,
    });
  } catch (cause) {
    release();
    throw cause;
  }
}

/** The KV pool comes last: it alone makes do with less. */
async function allocateMemory(
  device: GPUDevice,
  limits: BufferLimits,
  { spec, arena, maxRows, scratchBytes }: RecordedPass,
  releases: Release[],
): Promise<PlanMemory> {
  const { maxContext, maxSequences, blockSize } = spec;
  const scratch = await allocateScratch(device, limits, scratchBytes);
  releases.push(() => destroyAll(scratch.values()));
  const capacity = { maxRows, maxSequences, maxContext };
  const tableBlocks = Math.ceil(maxContext / blockSize);
  const stepBuffer = await StepBuffer.create(device, { ...capacity, tableBlocks });
  releases.push(() => stepBuffer.dispose());
  const samplerBuffers = await createSamplerBuffers(device, spec);
  releases.push(() => destroyAll(Object.values(samplerBuffers)));
  await allocate(device, "weights", () => arena.allocate());
  releases.push(() => arena.dispose());
  const pool = await KvPool.create(device, spec, limits);
  releases.push(() => pool.dispose());
  return { scratch, stepBuffer, samplerBuffers, pool };
}

/** `bind`; throws `out-of-memory` if the kernels' small constant buffers find no room any more. */
async function bindWatched(
  device: GPUDevice,
  kernels: KernelCache,
  limits: BufferLimits,
  pass: RecordedPass,
  memory: PlanMemory,
  readback: Readback,
): Promise<Bound> {
  const endWatch = watchMemory(device);
  let hadRoom: Promise<boolean>;
  let bound: Bound;
  try {
    bound = await bind(device, kernels, limits, pass, memory, readback);
  } finally {
    hadRoom = endWatch();
  }
  if (await hadRoom) return bound;
  const { scratch, stepBuffer, samplerBuffers, pool } = memory;
  const own = [...scratch.values(), stepBuffer.buffer, ...Object.values(samplerBuffers)];
  const bytes = sum(own.map(({ size }) => size)) + pass.arena.byteLength + pool.byteLength;
  throw outOfMemory("weights, KV pool, scratch and kernel constants together", bytes);
}

/** Compiles the kernels and binds them. */
async function bind(
  device: GPUDevice,
  kernels: KernelCache,
  limits: BufferLimits,
  { spec, ops, choice }: RecordedPass,
  { scratch, stepBuffer: { buffer: stepBuffer }, samplerBuffers, pool }: PlanMemory,
  readback: Readback,
): Promise<Bound> {
  const { numLayers, numHostBlocks, vocabularySize, maxSequences, maxContext } = spec;
  const buffer = (name: string): GPUBuffer => {
    const found = scratch.get(name);
    invariant(found, `There is no scratch buffer ${name}.`);
    return found;
  };
  if (scratch.has("rotations")) {
    const rotations = rotationTable(spec.rope, maxContext);
    device.queue.writeBuffer(buffer("rotations"), 0, rotations);
  }
  const context = { kernels, stepBuffer, choice, pool, scratch: buffer };
  const [copies, dispatches, swaps, sampler] = await Promise.all([
    copyDispatches(kernels, stepBuffer, pool),
    Promise.all(ops.map((op) => op(context))),
    BlockSwaps.create({ device, kernels, pool, numLayers, numHostBlocks, limits, readback }),
    Sampler.create({
      device,
      kernels,
      vocabularySize,
      maxSequences,
      buffers: samplerBuffers,
      logits: buffer("logits"),
      stepBuffer,
      lastTokens: buffer("lastTokens"),
    }),
  ]);
  return { dispatches: [...copies, ...dispatches.flat()], swaps, sampler };
}

/** Throws `webgpu-limits` for a buffer that can't be bound. */
async function allocateScratch(
  device: GPUDevice,
  limits: BufferLimits,
  scratchBytes: ReadonlyMap<string, number>,
): Promise<Map<string, GPUBuffer>> {
  const names = [...scratchBytes.keys()];
  for (const [name, bytes] of scratchBytes) {
    const limit = Math.min(limits.maxBindingBytes, limits.maxBufferBytes);
    if (bytes > limit) {
      throw new QuireError(
        "webgpu-limits",
        `The buffer for ${name} needs ${bytes} bytes; the adapter binds at most ${limit}. Lower maxSequences or kvCacheBytes, or use a smaller model.`,
        { need: bytes, limit },
      );
    }
  }
  const buffers = await allocate(device, "scratch", () =>
    names.map((label) =>
      device.createBuffer({
        label,
        size: Math.max(16, scratchBytes.get(label)!),
        usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST,
      }),
    ),
  );
  return new Map(names.map((name, i) => [name, buffers[i]!]));
}

function destroyAll(buffers: Iterable<GPUBuffer>): void {
  for (const buffer of buffers) buffer.destroy();
}

function sum(values: Iterable<number>): number {
  let total = 0;
  for (const value of values) total += value;
  return total;
}
