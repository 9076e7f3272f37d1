import type { Step, StepHandle, StepResult } from "../../engine/step.ts";
import { QuireError } from "../../errors.ts";
import type { TensorInfo } from "../../weights/tensorType.ts";
import type { Plan } from "../ops.ts";
import type { WeightArena } from "./arena.ts";
import type { BlockSwaps } from "./blockSwaps.ts";
import type { Dispatch } from "./dispatch.ts";
import type { KvPool } from "./kvPool.ts";
import type { Readback } from "./readback.ts";
import type { Sampler } from "./sampler.ts";
import type { StepBuffer } from "./stepBuffer.ts";

/**
 * One waits in the queue while another runs, which hides the way of its result to the host and of the
 * next step to the device; two more make up for results that are told late.
 */
const MAX_STEPS_IN_FLIGHT = 4;

/** All that a plan runs on; `release` frees it. */
export interface PlanParts {
  readonly device: GPUDevice;
  readonly arena: WeightArena;
  readonly pool: KvPool;
  readonly stepBuffer: StepBuffer;
  readonly sampler: Sampler;
  readonly swaps: BlockSwaps;
  readonly readback: Readback;
  readonly dispatches: readonly Dispatch[];
  /** f32 [maxSequences][vocabularySize]. */
  readonly logits: GPUBuffer;
  readonly vocabularySize: number;
  readonly maxRows: number;
  readonly tensors: readonly TensorInfo[];
  readonly scratchBytes: number;
  readonly release: () => void;
}

/** A forward pass as a list of dispatches over static bind groups. A step that swaps nothing creates nothing but its encoder. */
export class WebGpuPlan implements Plan {
  /** The queue keeps what each step uploads and reads back in order. */
  readonly maxStepsInFlight = MAX_STEPS_IN_FLIGHT;
  readonly #parts: PlanParts;
  #numLogits = 0; // rows of them, of the newest step
  #isDisposed = false;

  constructor(parts: PlanParts) {
    this.#parts = parts;
  }

  get numBlocks(): number {
    return this.#parts.pool.numBlocks;
  }

  get maxRows(): number {
    return this.#parts.maxRows;
  }

  get blockBytes(): number {
    return this.#parts.swaps.blockBytes;
  }

  get tensors(): readonly TensorInfo[] {
    return this.#parts.tensors;
  }

  get memory(): Plan["memory"] {
    const { arena, pool, scratchBytes, sampler, swaps } = this.#parts;
    return {
      weights: arena.byteLength,
      kvPool: pool.byteLength,
      scratch: scratchBytes + sampler.byteLength + swaps.byteLength,
      swapped: swaps.swappedBytes,
    };
  }

  writeRows(tensor: TensorInfo, rowStart: number, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    return this.#parts.arena.writeRows(tensor, rowStart, bytes);
  }

  submit(step: Step): StepHandle {
    if (this.#isDisposed) return { result: Promise.reject(disposed()) };
    const { device, stepBuffer, sampler, swaps, readback, dispatches } = this.#parts;
    this.#numLogits = step.samples.length + step.scores.length;
    sampler.resetSlots(step.slotResets);
    const counts = stepBuffer.write(step);
    swaps.release(step.hostReleases);
    const swapped = swaps.submit(step.swapOuts, step.swapIns);
    const encoder = device.createCommandEncoder({ label: "step" });
    const pass = encoder.beginComputePass({ label: "step" });
    for (const dispatch of dispatches) dispatch(pass, counts);
    sampler.encode(pass, step);
    pass.end();
    const byteLength = sampler.resultByteLength(step);
    if (byteLength === 0) {
      device.queue.submit([encoder.finish()]);
      return { result: this.#after(swapped, this.#idle()) };
    }
    const staging = readback.encode(encoder, sampler.results, byteLength);
    device.queue.submit([encoder.finish()]);
    const result = this.#read(staging, byteLength).then((bytes) => sampler.decode(step, bytes));
    return { result: this.#after(swapped, result) };
  }

  async readLogits(): Promise<Float32Array> {
    const { device, readback, logits, vocabularySize } = this.#parts;
    const byteLength = this.#numLogits * vocabularySize * 4;
    if (byteLength === 0) return new Float32Array(0);
    const encoder = device.createCommandEncoder({ label: "read logits" });
    const staging = readback.encode(encoder, logits, byteLength);
    device.queue.submit([encoder.finish()]);
    return new Float32Array(await this.#read(staging, byteLength));
  }

  dispose(): void {
    if (this.#isDisposed) return;
    this.#isDisposed = true;
    this.#parts.release();
  }

  /** A step without logits still takes its time: the engine learns from it how long steps are. */
  async #idle(): Promise<StepResult> {
    await this.#settled(this.#parts.readback.idle());
    return { tokens: [], logprobs: [], scores: [] };
  }

  /** The step's result, not before its blocks are in host memory. */
  async #after(
    swapped: Promise<void> | undefined,
    result: Promise<StepResult>,
  ): Promise<StepResult> {
    if (!swapped) return result;
    const [done] = await Promise.all([result, this.#settled(swapped)]);
    return done;
  }

  #read(staging: GPUBuffer, byteLength: number): Promise<ArrayBuffer> {
    return this.#settled(this.#parts.readback.read(staging, byteLength));
  }

  async #settled<T>(work: Promise<T>): Promise<T> {
    try {
      return await work;
    } catch (cause) {
      if (this.#isDisposed) throw disposed();
      if (cause instanceof QuireError) throw cause;
      throw new QuireError(
        "device-lost",
        `The GPU did not finish a step: ${String(cause)}. Create the engine again.`,
        {},
        { cause },
      );
    }
  }
}

function disposed(): QuireError {
  return new QuireError("disposed", "The model was disposed while a step was under way.");
}
