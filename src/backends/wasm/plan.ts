import {
  NO_TOKEN,
  SAMPLED_TOKEN,
  type Step,
  type StepHandle,
  type StepResult,
} from "../../engine/step.ts";
import { invariant, QuireError } from "../../errors.ts";
import type { TensorInfo } from "../../weights/tensorType.ts";
import type { Plan } from "../ops.ts";
import { rowWords, sampleWords, step as stepWords } from "./abi.ts";
import type { MemoryNeed } from "./memory.ts";
import { PoolMoves } from "./poolMoves.ts";
import type { Recorder } from "./recorder.ts";
import { fillRotations } from "./sincos.ts";
import { writeSamples } from "./stepTables.ts";
import type { Threads } from "./threads.ts";
import { writeWorkList } from "./workList.ts";

/** What a plan is made of, and `dispose` lets go of. */
export interface PlanParts {
  readonly recorder: Recorder;
  readonly memory: WebAssembly.Memory;
  readonly threads: Threads;
}

/** A forward pass in a WebAssembly memory. A step runs when it is submitted, on all threads. */
export class WasmPlan implements Plan {
  readonly numBlocks: number;
  readonly maxRows: number;
  readonly blockBytes: number;
  readonly tensors: readonly TensorInfo[];
  readonly #need: MemoryNeed;
  readonly #lastTokens = new Map<number, number>();
  #live: (PlanParts & { readonly moves: PoolMoves }) | undefined;
  #numPlaces = 0; // samples and scores of the newest step
  /** Set once a step failed half-way: the KV pool cannot be trusted any more. */
  #failure: unknown;

  constructor(parts: PlanParts, kernelNames: readonly string[]) {
    const { recorder, memory } = parts;
    const moves = new PoolMoves(recorder.kvPool, recorder.spec.numHostBlocks, memory);
    this.#live = { ...parts, moves };
    this.numBlocks = recorder.spec.numBlocks;
    this.maxRows = recorder.maxRows;
    this.#need = recorder.memory;
    this.blockBytes = moves.blockBytes;
    this.tensors = recorder.weights.tensors;
    recorder.program.bind(memory, kernelNames);
    recorder.sampler.bind(memory);
  }

  get memory(): Plan["memory"] {
    return { ...this.#need, swapped: this.#live?.moves.hostBytes ?? 0 };
  }

  async writeRows(tensor: TensorInfo, rowStart: number, bytes: Uint8Array): Promise<void> {
    const { recorder, memory } = this.#alive();
    recorder.weights.writeRows(memory, tensor, rowStart, bytes);
  }

  submit(step: Step): StepHandle {
    // Through a promise, so that an error reaches the caller where a GPU's would.
    const result = (async () => this.#run(step))();
    result.catch(() => {}); // the caller may look at it late, or never
    return { result };
  }

  async readLogits(): Promise<Float32Array> {
    const { recorder, memory } = this.#alive();
    const { vocabularySize } = recorder.spec;
    const { address, stride } = recorder.logits;
    const samples = new Int32Array(memory.buffer, recorder.tables.samples);
    const all = new Float32Array(this.#numPlaces * vocabularySize);
    for (let i = 0; i < this.#numPlaces; i++) {
      const row = samples[(i * sampleWords.BYTES) / 4 + sampleWords.LOGITS]!;
      const logits = new Float32Array(memory.buffer, address + row * stride, vocabularySize);
      all.set(logits, i * vocabularySize);
    }
    return all;
  }

  /** Ends the threads and lets go of the memory, which goes with its last reference, and of the host tier. */
  dispose(): void {
    this.#live?.threads.dispose();
    this.#live = undefined;
  }

  #run(step: Step): StepResult {
    const { recorder, memory, threads, moves } = this.#alive();
    if (this.#failure !== undefined) throw this.#failure;
    const { weights, sampler, program } = recorder;
    weights.checkComplete();
    const counts = this.#writeStep(step, recorder, memory);
    sampler.prepare(step.samples, step.scores);
    program.prepare(counts, threads.count);
    moves.run(step);
    try {
      threads.run(program.address, program.numCommands);
    } catch (error) {
      this.#failure = error;
      throw error;
    }
    this.#numPlaces = step.samples.length + step.scores.length;
    const result = sampler.readResults(step.samples, step.scores);
    for (const [i, { slot }] of step.samples.entries()) {
      const token = result.tokens[i]!;
      this.#lastTokens.set(slot, token === NO_TOKEN ? 0 : token);
    }
    return result;
  }

  /** Brings the step's tables up to date. */
  #writeStep(step: Step, { tables, sampler, spec }: Recorder, memory: WebAssembly.Memory) {
    invariant(
      step.rows.length >= 1 && step.rows.length <= this.maxRows,
      `A step has ${step.rows.length} rows; 1 to ${this.maxRows} are allowed.`,
    );
    const numPlaces = step.samples.length + step.scores.length;
    invariant(
      numPlaces <= spec.maxSequences,
      `A step has ${numPlaces} samples and scores; ${spec.maxSequences} is the most.`,
    );
    const words = new Int32Array(memory.buffer);
    sampler.resetSlots(step.slotResets);
    for (const { slot } of step.slotResets) this.#lastTokens.delete(slot);
    for (const { slot, index, block } of step.blockTableEntries) {
      words[tables.blockTables / 4 + slot * tables.tableBlocks + index] = block;
    }
    let at = tables.rows / 4;
    for (const { slot, token, position, kvSlot } of step.rows) {
      invariant(position < spec.maxContext, `Position ${position} is past the context.`);
      words[at + rowWords.SLOT] = slot;
      words[at + rowWords.TOKEN] = this.#tokenId(slot, token, spec.vocabularySize);
      words[at + rowWords.POSITION] = position;
      words[at + rowWords.KV_SLOT] = kvSlot;
      at += rowWords.BYTES / 4;
    }
    const logits = writeSamples(step, words, tables);
    const { frequencies, magnitude } = spec.rope;
    const rotations = new Float32Array(
      memory.buffer,
      tables.rotations,
      step.rows.length * frequencies.length * 2,
    );
    fillRotations(rotations, step.rows, frequencies, magnitude);
    const { items, merges } = writeWorkList(step.rows, words, tables.items, tables.merges);
    const counts = { rows: step.rows.length, logits, items, merges };
    words[stepWords.ROWS / 4] = counts.rows;
    words[stepWords.LOGITS / 4] = logits;
    words[stepWords.ITEMS / 4] = items;
    words[stepWords.MERGES / 4] = merges;
    return counts;
  }

  #tokenId(slot: number, token: number, vocabularySize: number): number {
    const id = token === SAMPLED_TOKEN ? this.#lastTokens.get(slot) : token;
    invariant(id !== undefined, `Slot ${slot} has sampled no token yet.`);
    invariant(id >= 0 && id < vocabularySize, `Token ${id} is not in the vocabulary.`);
    return id;
  }

  #alive() {
    if (this.#live !== undefined) return this.#live;
    throw new QuireError("disposed", "The plan was disposed.");
  }
}
