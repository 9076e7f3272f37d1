import type { StepRow } from "../../../engine/step.ts";
import { halfToNumber } from "../../../weights/half.ts";
import { attention, rmsNorm, rope } from "../../reference/kernels.ts";
import { itemWords, mergeWords, rowWords } from "../abi.ts";
import { ATTEND, MERGE, ROPE } from "../attentionAbi.ts";
import { defineAttentionKernels } from "../kernels/attention.ts";
import { layOutKvPool } from "../kvPool.ts";
import { floatBits } from "../program.ts";
import { fillRotations } from "../sincos.ts";
import { maxItems, maxPartials, partialBytes, writeWorkList } from "../workList.ts";
import { KernelHarness } from "./kernelHarness.ts";

export interface AttentionSpec {
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  readonly blockSize: 8 | 16 | 32;
  readonly kvCacheDtype: "f16" | "f32";
  readonly pairing: "adjacent" | "neox";
  /** Pairs of dimensions that turn. */
  readonly pairs: number;
  readonly hasHeadNorms: boolean;
  /** Tokens of each sequence: its slot is its index. */
  readonly lengths: readonly number[];
  /** Size of q, k and v; 1 by default. */
  readonly inputScale?: number;
}

export const DEFAULT_SPEC: AttentionSpec = {
  numHeads: 6,
  numKvHeads: 2,
  headDim: 64,
  blockSize: 16,
  kvCacheDtype: "f16",
  pairing: "adjacent",
  pairs: 32,
  hasHeadNorms: false,
  lengths: [20],
};

const EPSILON = 1e-5;
const KERNELS = defineAttentionKernels();

/** Numbers from -1 to 1, the same in every run. */
export function makeRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    const mixed = Math.imul(state ^ (state >>> 15), 0x2c1b3c6d);
    return ((mixed ^ (mixed >>> 13)) >>> 0) / 2 ** 31 - 1;
  };
}

/** The attention kernels over sequences of random q, k and v, and what float64 makes of the same. */
export class AttentionWorld {
  readonly spec: AttentionSpec;
  readonly numLayers = 2;
  readonly #harness = new KernelHarness(KERNELS);
  readonly #frequencies: Float64Array;
  readonly #tableBlocks: number;
  /** [slot][index] -> block */
  readonly #tables: readonly (readonly number[])[];
  /** [slot][position] -> [numHeads + 2 numKvHeads][headDim] */
  readonly #inputs: readonly (readonly Float32Array[])[];
  readonly #gains: { readonly q: Float32Array; readonly k: Float32Array };
  readonly #at: Readonly<Record<"input" | "queries" | "rows" | "rotations" | "tables", number>>;
  readonly #lists: Readonly<Record<"items" | "merges" | "outputs", number>>;
  readonly #gainsAt: { readonly q: number; readonly k: number };
  readonly #pool: { readonly layers: readonly number[]; readonly byteLength: number };
  readonly #inputStride: number;
  readonly #outputStride: number;

  private constructor(spec: AttentionSpec) {
    this.spec = spec;
    const { numHeads, numKvHeads, headDim, blockSize, lengths, pairs, inputScale = 1 } = spec;
    const random = makeRandom(headDim * 31 + lengths.length);
    const allHeads = numHeads + 2 * numKvHeads;
    const maxRows = lengths.reduce((sum, length) => sum + length, 0);
    const maxContext = Math.max(...lengths);
    this.#frequencies = Float64Array.from({ length: pairs }, (_, i) => 1e4 ** (-i / pairs));
    this.#tableBlocks = Math.ceil(maxContext / blockSize);
    const numBlocks = lengths.reduce((sum, length) => sum + Math.ceil(length / blockSize), 3);
    const shuffled = Array.from({ length: numBlocks }, (_, block) => ({ block, key: random() }))
      .sort((a, b) => a.key - b.key)
      .map(({ block }) => block);
    this.#tables = lengths.map((length) => shuffled.splice(0, Math.ceil(length / blockSize)));
    this.#inputs = lengths.map((length) =>
      Array.from({ length }, () =>
        Float32Array.from({ length: allHeads * headDim }, () => 2 * inputScale * random()),
      ),
    );
    const gain = () => Float32Array.from({ length: headDim }, () => 1 + 0.5 * random());
    this.#gains = { q: gain(), k: gain() };

    const { arena, program } = this.#harness;
    this.#inputStride = allHeads * headDim * 4 + 32;
    this.#outputStride = numHeads * headDim * 4 + 64;
    const reserve = (bytes: number) => arena.reserve("scratch", bytes);
    const rowsTable = reserve(maxRows * rowWords.BYTES);
    const rotations = reserve(maxRows * pairs * 8);
    const input = reserve(maxRows * this.#inputStride);
    const queries = reserve(maxRows * this.#outputStride);
    const outputs = reserve(maxRows * this.#outputStride);
    const blockTables = reserve(lengths.length * this.#tableBlocks * 4);
    const items = reserve(maxItems(maxRows, maxContext) * itemWords.BYTES);
    const merges = reserve(maxRows * mergeWords.BYTES);
    const partials = reserve(maxPartials(maxRows, maxContext) * partialBytes(numHeads, headDim));
    this.#gainsAt = { q: reserve(headDim * 4), k: reserve(headDim * 4) };
    this.#at = { input, queries, rows: rowsTable, rotations, tables: blockTables };
    this.#lists = { items, merges, outputs };
    this.#pool = layOutKvPool({ ...spec, numLayers: this.numLayers, numBlocks }, arena);

    const sizes = { numHeads, numKvHeads, headDim, blockSize, rowsTable };
    const layer = this.#pool.layers[1]!;
    program.add({
      kernel: `ropeWriteKv_${spec.kvCacheDtype}`,
      params: program.params(ROPE, {
        ...sizes,
        input,
        inputStride: this.#inputStride,
        output: queries,
        outputStride: this.#outputStride,
        rotations,
        layer,
        pairs,
        isNeox: spec.pairing === "neox" ? 1 : 0,
        queryGain: spec.hasHeadNorms ? this.#gainsAt.q : 0,
        keyGain: spec.hasHeadNorms ? this.#gainsAt.k : 0,
        epsilon: floatBits(EPSILON),
      }),
      items: ({ rows }) => rows * allHeads,
    });
    program.add({
      kernel: `attend_${spec.kvCacheDtype}`,
      params: program.params(ATTEND, {
        ...sizes,
        queries,
        queryStride: this.#outputStride,
        layer,
        scale: floatBits(1 / Math.sqrt(headDim)),
        blockTables,
        tableBlocks: this.#tableBlocks,
        items,
        outputs,
        outputStride: this.#outputStride,
        partials,
      }),
      items: (counts) => counts.items * numKvHeads,
    });
    program.add({
      kernel: "mergeAttention",
      params: program.params(MERGE, {
        merges,
        partials,
        numHeads,
        headDim,
        outputs,
        outputStride: this.#outputStride,
      }),
      items: (counts) => counts.merges * numHeads,
    });
  }

  /** A pool full of `garbage` bytes, in which the K and V of all tokens of all sequences were written. */
  static async create(spec: Partial<AttentionSpec>, garbage = 0xff): Promise<AttentionWorld> {
    const world = new AttentionWorld({ ...DEFAULT_SPEC, ...spec });
    const harness = world.#harness;
    await harness.bind();
    harness.bytes(world.#pool.layers[0], world.#pool.byteLength).fill(garbage);
    const { headDim } = world.spec;
    harness.float32(world.#gainsAt.q, headDim).set(world.#gains.q);
    harness.float32(world.#gainsAt.k, headDim).set(world.#gains.k);
    for (const [slot, table] of world.#tables.entries()) {
      harness.int32(world.#at.tables + slot * world.#tableBlocks * 4, table.length).set(table);
    }
    const all = world.#inputs.flatMap((inputs, slot) =>
      inputs.map((_, position) => world.row(slot, position)),
    );
    world.#writeRows(all);
    harness.run({ rows: all.length, items: 0, merges: 0 }, 3);
    return world;
  }

  row(slot: number, position: number): StepRow {
    const { blockSize } = this.spec;
    const block = this.#tables[slot]![Math.floor(position / blockSize)]!;
    return { slot, position, token: 0, kvSlot: block * blockSize + (position % blockSize) };
  }

  /** One step. Returns each row's attention, [numHeads * headDim]. */
  run(rows: readonly StepRow[], numThreads = 1): readonly Float32Array[] {
    const harness = this.#harness;
    this.#writeRows(rows);
    const { items, merges } = writeWorkList(
      rows,
      harness.int32(),
      this.#lists.items,
      this.#lists.merges,
    );
    harness.run({ rows: rows.length, items, merges }, numThreads);
    return rows.map((_, i) => this.#outputRow(this.#lists.outputs, i));
  }

  /** The turned queries of a row of the last step. */
  queries(row: number): Float32Array {
    return this.#outputRow(this.#at.queries, row);
  }

  /** What float64 makes of a head before it is stored; heads as in qkv. */
  expectedHead({ slot, position }: StepRow, head: number): Float64Array {
    const { numHeads, numKvHeads, headDim, pairing, hasHeadNorms } = this.spec;
    const input = this.#inputs[slot]![position]!;
    const values = Float64Array.from(input.subarray(head * headDim, (head + 1) * headDim));
    if (head >= numHeads + numKvHeads) return values;
    const gain = head < numHeads ? this.#gains.q : this.#gains.k;
    const normed = hasHeadNorms ? rmsNorm(values, gain, EPSILON) : values;
    const rotation = { pairing, frequencies: this.#frequencies, magnitude: MAGNITUDE };
    return rope(normed, position, rotation);
  }

  /** K or V of a token as it lies in the pool. */
  stored({ kvSlot }: StepRow, part: "k" | "v", kvHead: number): Float64Array {
    const { numKvHeads, headDim, blockSize, kvCacheDtype } = this.spec;
    const isHalf = kvCacheDtype === "f16";
    const block = Math.floor(kvSlot / blockSize);
    const slot = kvSlot % 8;
    const unitsPerHead = blockSize / 8;
    const unit =
      (block * numKvHeads + kvHead) * unitsPerHead + Math.floor((kvSlot % blockSize) / 8);
    const order = isHalf ? [0, 2, 4, 6, 1, 3, 5, 7] : [0, 1, 2, 3, 4, 5, 6, 7];
    const start = unit * 16 * headDim + (part === "v" ? 8 * headDim : 0);
    const memory = this.#harness.bytes();
    const view = new DataView(memory.buffer, this.#pool.layers[1]!);
    return Float64Array.from({ length: headDim }, (_, d) => {
      const inUnit =
        part === "k" ? d * 8 + order[slot]! : Math.floor(d / 8) * 64 + slot * 8 + order[d % 8]!;
      const index = start + inUnit;
      return isHalf
        ? halfToNumber(view.getUint16(index * 2, true))
        : view.getFloat32(index * 4, true);
    });
  }

  /** Attention in float64 over the queries of the last step and what lies in the pool. */
  expectedAttention(rowIndex: number, row: StepRow): Float64Array {
    const { numHeads, numKvHeads, headDim } = this.spec;
    const queries = this.queries(rowIndex);
    const result = new Float64Array(numHeads * headDim);
    const seen = Array.from({ length: row.position + 1 }, (_, i) => this.row(row.slot, i));
    for (let kvHead = 0; kvHead < numKvHeads; kvHead++) {
      const keys = seen.map((token) => this.stored(token, "k", kvHead));
      const values = seen.map((token) => this.stored(token, "v", kvHead));
      const group = numHeads / numKvHeads;
      for (let head = kvHead * group; head < (kvHead + 1) * group; head++) {
        const q = Float64Array.from(queries.subarray(head * headDim, (head + 1) * headDim));
        result.set(attention(q, keys, values), head * headDim);
      }
    }
    return result;
  }

  #writeRows(rows: readonly StepRow[]): void {
    const harness = this.#harness;
    const { numHeads, numKvHeads, headDim, pairs } = this.spec;
    const allHeads = numHeads + 2 * numKvHeads;
    for (const [i, { slot, position, kvSlot }] of rows.entries()) {
      const words = harness.int32(this.#at.rows + i * rowWords.BYTES, rowWords.BYTES / 4);
      words[rowWords.SLOT] = slot;
      words[rowWords.POSITION] = position;
      words[rowWords.KV_SLOT] = kvSlot;
      harness
        .float32(this.#at.input + i * this.#inputStride, allHeads * headDim)
        .set(this.#inputs[slot]![position]!);
    }
    const rotations = harness.float32(this.#at.rotations, rows.length * pairs * 2);
    fillRotations(rotations, rows, this.#frequencies, MAGNITUDE);
  }

  #outputRow(start: number, row: number): Float32Array {
    const { numHeads, headDim } = this.spec;
    const at = start + row * this.#outputStride;
    return this.#harness.float32(at, numHeads * headDim).slice();
  }
}

/** Not 1, so that it cannot be forgotten. */
const MAGNITUDE = 1.125;
