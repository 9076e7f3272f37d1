import { invariant } from "../../errors.ts";
import { BeamParents } from "../beamParents.ts";
import { BuddyAllocator, nextPowerOfTwo } from "../buddyAllocator.ts";
import { type CostModel, copyMs, stepMs } from "../costModel.ts";
import { createRandom } from "../random.ts";
import { RequestQueue } from "../requestQueue.ts";
import { type KvUsage, noKvUsage, type Progress, type System, type SystemId } from "../system.ts";
import type { LabRequest } from "../workloads.ts";
import { MAX_BATCHED_TOKENS, MAX_MODEL_TOKENS, MAX_SEQUENCES } from "./limits.ts";

/** What Orca knows of an answer's length when it reserves memory for it. */
export type OrcaKnowledge = "max" | "pow2" | "oracle";

export interface OrcaOptions {
  readonly model: CostModel;
  readonly knowledge: OrcaKnowledge;
  /** Output tokens for which room is reserved, instead of what is known: the chatbot's 1024. */
  readonly reservedOutput?: number;
  readonly seed: number;
}

interface Running {
  readonly request: LabRequest;
  /** One contiguous chunk a sequence. */
  readonly chunks: readonly number[];
  /** Slots that one sequence will use, and that were reserved for it. */
  readonly needed: number;
  readonly wanted: number;
  written: number;
}

const IDS = { max: "orca-max", pow2: "orca-pow2", oracle: "orca-oracle" } as const;

/**
 * Orca as the paper built it for comparison: batches change at every iteration, first come, first served.
 * A sequence's K and V are contiguous, reserved at admission from a buddy allocator and freed at its end;
 * nobody is preempted. Samples and beams keep K and V of their own: the prompt's are computed once and
 * copied, and a beam that goes on from another copies all of it.
 */
export class Orca implements System {
  readonly id: SystemId;
  batchSize = 0;
  readonly kv: KvUsage;
  readonly #options: OrcaOptions;
  readonly #buddies: BuddyAllocator;
  readonly #waiting = new RequestQueue();
  readonly #beamParents: BeamParents;
  #running: Running[] = [];
  #numSequences = 0;

  constructor(options: OrcaOptions) {
    this.id = IDS[options.knowledge];
    this.#options = options;
    this.#buddies = new BuddyAllocator(options.model.kvSlots);
    this.kv = noKvUsage(options.model.kvSlots);
    this.#beamParents = new BeamParents(createRandom(options.seed, "beams"));
  }

  get hasWork(): boolean {
    return this.#running.length > 0 || this.#waiting.size > 0;
  }

  get numWaiting(): number {
    return this.#waiting.size;
  }

  add(request: LabRequest): void {
    this.#waiting.push(request);
  }

  step(_nowMs: number, progress: Progress): number {
    const { model } = this.#options;
    const numDecoding = this.#running.length;
    let rows = this.#numSequences;
    let extraMs = 0;
    const promptRows = this.#admit(rows);
    invariant(this.#running.length > 0, "A request does not fit Orca's memory even alone.");
    rows += promptRows;
    let contextTokens = 0;
    let copied = 0;
    for (const [i, running] of this.#running.entries()) {
      const { request } = running;
      if (i < numDecoding) {
        running.written += 1;
        if (request.isBeam) copied += this.#beamParents.draw(request.width) * running.written;
      } else {
        running.written = request.promptTokens;
        copied += (request.width - 1) * running.written;
      }
      contextTokens += running.written * request.width;
    }
    extraMs += copyMs(model, copied);
    this.#account();
    this.#report(progress);
    return stepMs(model, rows, this.#numSequencesOfStep, contextTokens) + extraMs;
  }

  #numSequencesOfStep = 0;

  /** Takes requests in order, up to the first whose chunks are not all there. Returns their prompts' rows. */
  #admit(decodeRows: number): number {
    let rows = 0;
    for (;;) {
      const request = this.#waiting.first;
      if (request === undefined) return rows;
      const { promptTokens, outputTokens, width } = request;
      if (this.#numSequences + width > MAX_SEQUENCES) return rows;
      if (rows > 0 && decodeRows + rows + promptTokens > MAX_BATCHED_TOKENS) return rows;
      const wanted = this.#wantedSlots(request);
      const chunks = this.#allocate(wanted, width);
      if (chunks === undefined) return rows;
      this.#waiting.shift();
      const needed = promptTokens + outputTokens;
      this.#running.push({ request, chunks, needed, wanted, written: 0 });
      this.#numSequences += width;
      rows += promptTokens;
    }
  }

  #wantedSlots({ promptTokens, outputTokens }: LabRequest): number {
    const { knowledge, reservedOutput } = this.#options;
    if (reservedOutput !== undefined) return promptTokens + reservedOutput;
    if (knowledge === "max") return MAX_MODEL_TOKENS;
    const output = knowledge === "pow2" ? nextPowerOfTwo(outputTokens) : outputTokens;
    return Math.min(promptTokens + output, MAX_MODEL_TOKENS);
  }

  /** All chunks or none. */
  #allocate(length: number, count: number): readonly number[] | undefined {
    const chunks: number[] = [];
    for (let i = 0; i < count; i++) {
      const chunk = this.#buddies.allocate(length);
      if (chunk === undefined) {
        for (const taken of chunks) this.#buddies.free(taken);
        return undefined;
      }
      chunks.push(chunk);
    }
    return chunks;
  }

  #account(): void {
    let tokenStates = 0;
    let needed = 0;
    let wanted = 0;
    for (const running of this.#running) {
      const { width } = running.request;
      tokenStates += running.written * width;
      needed += running.needed * width;
      wanted += running.wanted * width;
    }
    this.kv.tokenStates = tokenStates;
    this.kv.reserved = needed - tokenStates;
    this.kv.internal = wanted - needed;
    this.batchSize = this.#running.length;
    this.#numSequencesOfStep = this.#numSequences;
  }

  /** Every sequence has one more token: the prompt's step gives the first. */
  #report(progress: Progress): void {
    let numLeft = 0;
    for (const running of this.#running) {
      const { request, written } = running;
      for (let i = 0; i < request.width; i++) progress.token(request.firstSequence + i);
      if (written - request.promptTokens + 1 < request.outputTokens) {
        this.#running[numLeft] = running;
        numLeft += 1;
        continue;
      }
      for (const chunk of running.chunks) this.#buddies.free(chunk);
      this.#numSequences -= request.width;
      progress.finish(request);
    }
    this.#running.length = numLeft;
  }
}
