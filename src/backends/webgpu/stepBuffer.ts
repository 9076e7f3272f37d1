import type { Step, StepRow } from "../../engine/step.ts";
import { invariant } from "../../errors.ts";
import { type Resources, read, uniform } from "./kernel.ts";
import { allocate } from "./outOfMemory.ts";

/** Tokens of a KV range that one attention work item covers. Ranges start at multiples of it. */
export const KV_SPLIT = 256;

/** Words of the header (shaders/common/step.wgsl), padded to 256 bytes. */
export const HEADER_WORDS = 64;
const NO_PARTIAL = 0xffffffff;
/** Last word of a scored row in the list of samples, where a sample has 0. */
const SCORE = 1;

/** How many of each list a step has: the sizes of the dispatches. */
export interface StepCounts {
  readonly rows: number;
  readonly samples: number;
  /** Samples and scores: rows whose logits are computed. */
  readonly logits: number;
  readonly items: number;
  readonly copies: number;
  readonly entries: number;
  readonly merges: number;
}

export interface StepCapacity {
  readonly maxRows: number;
  readonly maxSequences: number;
  /** Longest sequence, in tokens. */
  readonly maxContext: number;
  /** Blocks of a sequence's block table: the row length of the table on the GPU. */
  readonly tableBlocks: number;
}

/** Bindings 0 and 1 of shaders/common/step.wgsl. */
export function stepResources(stepBuffer: GPUBuffer): Resources {
  return { 0: uniform(stepBuffer, HEADER_WORDS * 4), 1: read(stepBuffer) };
}

/** KV ranges that a row at the last position of a context has. */
export function maxSplits(maxContext: number): number {
  return Math.ceil(maxContext / KV_SPLIT);
}

/**
 * Turns a step into the words of one upload: header, rows, samples and scores as one list, attention items,
 * table entries, merges, block copies.
 */
export class StepBuffer {
  readonly buffer: GPUBuffer;
  readonly #device: GPUDevice;
  readonly #capacity: StepCapacity;
  readonly #words: Uint32Array<ArrayBuffer>;

  private constructor(device: GPUDevice, capacity: StepCapacity, buffer: GPUBuffer) {
    this.#device = device;
    this.#capacity = capacity;
    this.#words = new Uint32Array(buffer.size / 4);
    this.buffer = buffer;
  }

  /** Throws `out-of-memory`. */
  static async create(device: GPUDevice, capacity: StepCapacity): Promise<StepBuffer> {
    const { maxRows, maxSequences, maxContext, tableBlocks } = capacity;
    const items = maxRows * maxSplits(maxContext);
    const numWords =
      HEADER_WORDS + maxRows * 8 + items * 4 + maxSequences * (4 + tableBlocks * 2 + 2);
    const [buffer] = await allocate(device, "step uploads", () => [
      device.createBuffer({
        label: "step",
        size: numWords * 4,
        usage: GPUBufferUsage.STORAGE | GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST,
      }),
    ]);
    return new StepBuffer(device, capacity, buffer!);
  }

  /** Uploads a step in one write. */
  write(step: Step): StepCounts {
    const { maxRows, maxSequences, maxContext, tableBlocks } = this.#capacity;
    invariant(step.rows.length <= maxRows, `A step has ${step.rows.length} rows of ${maxRows}.`);
    const numLogits = step.samples.length + step.scores.length;
    invariant(
      numLogits <= maxSequences,
      `A step wants the logits of ${numLogits} rows; ${maxSequences} is the most.`,
    );
    invariant(
      step.copies.length <= maxSequences,
      `A step copies ${step.copies.length} blocks; ${maxSequences} is the most.`,
    );
    const words = this.#words;
    let at = HEADER_WORDS;

    const rowsAt = at;
    for (const { slot, token, position, kvSlot } of step.rows) {
      invariant(
        position < maxContext,
        `Position ${position} is past the context of ${maxContext}.`,
      );
      words[at++] = slot;
      words[at++] = token; // SAMPLED_TOKEN wraps to 0xffffffff
      words[at++] = position;
      words[at++] = kvSlot;
    }
    const samplesAt = at;
    for (const { row, slot, position } of step.samples) {
      words[at++] = row;
      words[at++] = slot;
      words[at++] = position;
      words[at++] = 0;
    }
    for (const { row, token, top } of step.scores) {
      words[at++] = row;
      words[at++] = token;
      words[at++] = top;
      words[at++] = SCORE;
    }
    const itemsAt = at;
    at = this.#writeItems(step.rows, at);
    const items = (at - itemsAt) / 4;
    const entriesAt = at;
    for (const { slot, index, block } of step.blockTableEntries) {
      words[at++] = slot * tableBlocks + index;
      words[at++] = block;
    }
    const mergesAt = at;
    at = this.#writeMerges(step.rows, at);
    const merges = (at - mergesAt) / 4;
    const copiesAt = at;
    for (const { source, target } of step.copies) {
      words[at++] = source;
      words[at++] = target;
    }

    const counts = {
      rows: step.rows.length,
      samples: step.samples.length,
      logits: numLogits,
      items,
      copies: step.copies.length,
      entries: step.blockTableEntries.length,
      merges,
    };
    words.set(
      [
        counts.rows,
        counts.samples,
        rowsAt,
        samplesAt,
        items,
        itemsAt,
        counts.entries,
        entriesAt,
        merges,
        mergesAt,
        counts.logits,
        counts.copies,
        copiesAt,
      ],
      0,
    );
    this.#device.queue.writeBuffer(this.buffer, 0, words, 0, at);
    return counts;
  }

  dispose(): void {
    this.buffer.destroy();
  }

  /** One item for each KV range of each row: {row, firstPosition, endPosition, partial}. */
  #writeItems(rows: readonly StepRow[], start: number): number {
    const words = this.#words;
    let at = start;
    let partial = 0;
    for (const [row, { position }] of rows.entries()) {
      const end = position + 1;
      const isSplit = end > KV_SPLIT;
      for (let first = 0; first < end; first += KV_SPLIT) {
        words[at++] = row;
        words[at++] = first;
        words[at++] = Math.min(end, first + KV_SPLIT);
        words[at++] = isSplit ? partial++ : NO_PARTIAL;
      }
    }
    return at;
  }

  /** One merge for each row of several items: {row, firstPartial, numPartials, 0}. */
  #writeMerges(rows: readonly StepRow[], start: number): number {
    const words = this.#words;
    let at = start;
    let partial = 0;
    for (const [row, { position }] of rows.entries()) {
      const numPartials = maxSplits(position + 1);
      if (numPartials === 1) continue;
      words[at++] = row;
      words[at++] = partial;
      words[at++] = numPartials;
      words[at++] = 0;
      partial += numPartials;
    }
    return at;
  }
}
