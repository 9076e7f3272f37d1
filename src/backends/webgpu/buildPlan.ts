import { invariant, QuireError, throwIfAborted } from "../../errors.ts";
import type { TensorInfo } from "../../weights/tensorType.ts";
import type { Plan, PlanSpec } from "../ops.ts";
import type { WeightArena } from "./arena.ts";
import { copyDispatches } from "./blockCopies.ts";
import { BlockSwaps } from "./blockSwaps.ts";
import type { Dispatch } from "./dispatch.ts";
import type { KernelCache } from "./kernel.ts";
import { KvPool } from "./kvPool.ts";
import type { BufferLimits } from "./limits.ts";
import { allocateOrUndefined } from "./outOfMemory.ts";
import { WebGpuPlan } from "./plan.ts";
import { Readback } from "./readback.ts";
import { rotationTable } from "./rotationTable.ts";
import { Sampler } from "./sampler.ts";
import { StepBuffer } from "./stepBuffer.ts";

/** What the ops of a plan share once memory is there. */
export interface BuildContext {
  readonly kernels: KernelCache;
  readonly stepBuffer: GPUBuffer;
  readonly pool: KvPool;
  readonly scratch: (name: string) => GPUBuffer;
}

/** An op of the forward pass: makes its dispatches once memory is there. */
export type RecordedOp = (context: BuildContext) => Promise<readonly Dispatch[]>;

/** A forward pass as the builder recorded it. */
export interface RecordedPass {
  readonly spec: PlanSpec;
  readonly maxRows: number;
  readonly ops: readonly RecordedOp[];
  readonly arena: WeightArena;
  readonly tensors: readonly TensorInfo[];
  /** Scratch buffers by name, in bytes. */
  readonly scratchBytes: ReadonlyMap<string, number>;
}

/** Allocates, compiles and binds a recorded pass. Frees everything if something fails. */
export async function buildPlan(
  device: GPUDevice,
  kernels: KernelCache,
  limits: BufferLimits,
  pass: RecordedPass,
  signal: AbortSignal | undefined,
): Promise<Plan> {
  throwIfAborted(signal, "Loading the model");
  const { spec, arena, maxRows } = pass;
  const { maxContext, maxSequences, blockSize, vocabularySize } = spec;
  const cleanUp: (() => void)[] = [];
  try {
    const scratch = await allocateScratch(device, limits, pass.scratchBytes);
    cleanUp.push(() => {
      for (const buffer of scratch.values()) buffer.destroy();
    });
    cleanUp.push(() => arena.dispose());
    await allocateWeights(device, arena);
    const pool = await KvPool.create(device, spec, limits);
    cleanUp.push(() => pool.dispose());
    const stepBuffer = new StepBuffer(device, {
      maxRows,
      maxSequences,
      maxContext,
      tableBlocks: Math.ceil(maxContext / blockSize),
    });
    cleanUp.push(() => stepBuffer.dispose());
    const buffer = (name: string): GPUBuffer => {
      const found = scratch.get(name);
      invariant(found, `There is no scratch buffer ${name}.`);
      return found;
    };
    if (scratch.has("rotations")) {
      const rotations = rotationTable(spec.rope, maxContext);
      device.queue.writeBuffer(buffer("rotations"), 0, rotations);
    }
    const context = {
      kernels,
      stepBuffer: stepBuffer.buffer,
      pool,
      scratch: buffer,
    };
    const readback = new Readback(device);
    cleanUp.push(() => readback.dispose());
    const [copies, dispatches, swaps, sampler] = await Promise.all([
      copyDispatches(kernels, stepBuffer.buffer, pool),
      Promise.all(pass.ops.map((op) => op(context))),
      BlockSwaps.create({
        device,
        kernels,
        pool,
        numLayers: spec.numLayers,
        numHostBlocks: spec.numHostBlocks,
        limits,
        readback,
      }),
      Sampler.create({
        device,
        vocabularySize,
        maxSequences,
        logits: buffer("logits"),
        stepBuffer: stepBuffer.buffer,
        lastTokens: buffer("lastTokens"),
      }),
    ]);
    cleanUp.push(() => sampler.dispose());
    cleanUp.push(() => swaps.dispose());
    await readback.calibrate();
    throwIfAborted(signal, "Loading the model");
    return new WebGpuPlan({
      device,
      arena,
      pool,
      stepBuffer,
      sampler,
      swaps,
      readback,
      dispatches: [...copies, ...dispatches.flat()],
      logits: buffer("logits"),
      vocabularySize,
      maxRows,
      tensors: pass.tensors,
      scratchBytes: sum([...scratch.values()].map(({ size }) => size)),
      release: () => {
        for (const free of cleanUp) free();
      },
    });
  } catch (cause) {
    for (const free of cleanUp) free();
    throw cause;
  }
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
        `The buffer for ${name} needs ${bytes} bytes; the adapter binds at most ${limit}. Lower maxSequences or the context length.`,
        { need: bytes, limit },
      );
    }
  }
  const buffers = await allocateOrUndefined(device, () =>
    names.map((label) =>
      device.createBuffer({
        label,
        size: Math.max(16, scratchBytes.get(label)!),
        usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST,
      }),
    ),
  );
  if (!buffers) throw outOfMemory("scratch buffers", sum(scratchBytes.values()));
  return new Map(names.map((name, i) => [name, buffers[i]!]));
}

async function allocateWeights(device: GPUDevice, arena: WeightArena): Promise<void> {
  const buffers = await allocateOrUndefined(device, () => arena.allocate());
  if (!buffers) throw outOfMemory("weights", arena.byteLength);
}

function outOfMemory(what: string, bytes: number): QuireError {
  return new QuireError(
    "out-of-memory",
    `The GPU has no room for ${bytes} bytes of ${what}. Close other pages, or use a smaller model.`,
    { bytes },
  );
}

function sum(values: Iterable<number>): number {
  let total = 0;
  for (const value of values) total += value;
  return total;
}
