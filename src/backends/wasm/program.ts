import { invariant } from "../../errors.ts";
import { command, type ParamOffsets } from "./abi.ts";
import type { Arena } from "./arena.ts";

/** What a step has of each: the sizes of its commands. */
export interface StepCounts {
  readonly rows: number;
  /** Distinct rows whose logits are wanted. */
  readonly logits: number;
  readonly items: number;
  readonly merges: number;
}

/** One kernel over some number of items, which may differ from step to step. */
export interface Command {
  readonly kernel: string;
  /** Address of the parameters, from `Program.params`. */
  readonly params: number;
  /** 0 = the command is passed over in this step. */
  readonly items: (counts: StepCounts) => number;
  /** Fewest items that are worth a chunk of their own; 1 by default. */
  readonly chunkItems?: number;
}

/** Chunks a thread where there is work for several: evens out threads of unequal speed. */
const CHUNKS_PER_THREAD = 4;

/** A parameter's value: an address or a count as it is, a float by its bits. */
export function floatBits(value: number): number {
  floats[0] = value;
  return words[0]!;
}
const floats = new Float32Array(1);
const words = new Int32Array(floats.buffer);

/** The commands of a step, in their order, and their parameters. */
export class Program {
  readonly #arena: Arena;
  readonly #commands: Command[] = [];
  readonly #params: { readonly address: number; readonly values: readonly number[] }[] = [];
  #address = 0;
  #kernelIndex: ReadonlyMap<string, number> = new Map();
  #words = new Int32Array();

  constructor(arena: Arena) {
    this.#arena = arena;
  }

  get commands(): readonly Command[] {
    return this.#commands;
  }

  get numCommands(): number {
    return this.#commands.length;
  }

  /** Address of the first command, after `seal`. */
  get address(): number {
    return this.#address;
  }

  /** Reserves and fills a kernel's parameters. Every name must get its value. */
  params<N extends string>(
    offsets: ParamOffsets<N>,
    values: { readonly [K in NoInfer<N>]: number },
  ): number {
    const names = Object.keys(offsets) as N[];
    const address = this.#arena.reserve("program params", names.length * 4);
    const list: number[] = [];
    for (const name of names) {
      const value = values[name];
      invariant(Number.isInteger(value), `The kernel parameter "${name}" is ${value}.`);
      list[offsets[name] / 4] = value;
    }
    this.#params.push({ address, values: list });
    return address;
  }

  add(added: Command): void {
    this.#commands.push(added);
  }

  /** No command follows. */
  seal(): void {
    this.#address = this.#arena.reserve("program", this.#commands.length * command.BYTES);
  }

  /** Writes everything that stays from step to step. `kernelNames` in the order of the table. */
  bind(memory: WebAssembly.Memory, kernelNames: readonly string[]): void {
    this.#words = new Int32Array(memory.buffer);
    this.#kernelIndex = new Map(kernelNames.map((name, index) => [name, index]));
    for (const { address, values } of this.#params) this.#words.set(values, address / 4);
    for (const [i, { kernel, params }] of this.#commands.entries()) {
      const index = this.#kernelIndex.get(kernel);
      invariant(index !== undefined, `There is no kernel "${kernel}".`);
      const at = (this.#address + i * command.BYTES) / 4;
      this.#words[at + command.KERNEL] = index;
      this.#words[at + command.PARAMS] = params;
    }
  }

  /** Sizes the commands for a step. No thread may be in the program. */
  prepare(counts: StepCounts, numThreads: number): void {
    const words = this.#words;
    const chunksForMany = numThreads === 1 ? 1 : numThreads * CHUNKS_PER_THREAD;
    const chunks = counts.rows === 1 ? numThreads : chunksForMany;
    let at = this.#address / 4;
    for (const { items: itemsOf, chunkItems = 1 } of this.#commands) {
      const items = itemsOf(counts);
      words[at + command.ITEMS] = items;
      words[at + command.CHUNKS] =
        items === 0 ? 0 : Math.max(1, Math.min(chunks, Math.floor(items / chunkItems)));
      words[at + command.NEXT] = 0;
      words[at + command.DONE] = 0;
      words[at + command.WAITERS] = 0;
      at += command.BYTES / 4;
    }
  }
}
