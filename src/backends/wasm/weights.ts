import { invariant } from "../../errors.ts";
import { dequantizeRows } from "../../weights/dequantize.ts";
import { rowByteLength, type TensorInfo } from "../../weights/tensorType.ts";
import type { Arena } from "./arena.ts";
import { layOutMatrix, type PackedMatrix, packRows } from "./packedMatrix.ts";

/** A matrix in the memory. */
export interface PlacedMatrix {
  readonly matrix: PackedMatrix;
  readonly address: number;
}

/** Puts rows of a tensor where they belong in the memory. */
type Target = (memory: WebAssembly.Memory, rowStart: number, bytes: Uint8Array) => void;

/** The weights of a plan: where each tensor goes, and which rows are still missing. */
export class Weights {
  readonly #arena: Arena;
  readonly #matrices = new Map<string, PlacedMatrix>();
  readonly #vectors = new Map<string, number>();
  readonly #tensors = new Map<string, TensorInfo>();
  readonly #targets = new Map<string, Target[]>();
  readonly #missingRows = new Map<string, number>();

  constructor(arena: Arena) {
    this.#arena = arena;
  }

  /** Every tensor in use, once. */
  get tensors(): readonly TensorInfo[] {
    return [...this.#tensors.values()];
  }

  /** The matrix of stacked tensors; the same tensors twice are one matrix (tied embeddings). */
  matrix(tensors: readonly TensorInfo[]): PlacedMatrix {
    const key = tensors.map(({ name }) => name).join("\n");
    const known = this.#matrices.get(key);
    if (known !== undefined) return known;
    const matrix = layOutMatrix(tensors);
    const address = this.#arena.reserve("weights", matrix.byteLength);
    const placed = { matrix, address };
    this.#matrices.set(key, placed);
    for (const tensor of tensors) {
      this.#addTarget(tensor, (memory, rowStart, bytes) =>
        packRows(
          matrix,
          new Uint8Array(memory.buffer, address, matrix.byteLength),
          tensor,
          rowStart,
          bytes,
        ),
      );
    }
    return placed;
  }

  /** Address of the values of one-row tensors, one after another, as f32; `undefined` stands for zeros. */
  vector(
    parts: readonly { readonly tensor: TensorInfo | undefined; readonly length: number }[],
  ): number {
    const key = parts.map(({ tensor, length }) => tensor?.name ?? `${length} zeros`).join("\n");
    const known = this.#vectors.get(key);
    if (known !== undefined) return known;
    const total = parts.reduce((sum, { length }) => sum + length, 0);
    // Kernels read whole tiles.
    const address = this.#arena.reserve("weights", (total + 8) * 4);
    this.#vectors.set(key, address);
    let at = address;
    for (const { tensor, length } of parts) {
      const start = at;
      at += length * 4;
      if (tensor === undefined) continue;
      this.#addTarget(tensor, (memory, _, bytes) =>
        new Float32Array(memory.buffer, start, length).set(
          dequantizeRows(tensor.type, bytes, tensor.columns, 1),
        ),
      );
    }
    return address;
  }

  writeRows(
    memory: WebAssembly.Memory,
    tensor: TensorInfo,
    rowStart: number,
    bytes: Uint8Array,
  ): void {
    const numRows = bytes.length / rowByteLength(tensor);
    invariant(
      Number.isInteger(numRows) && rowStart >= 0 && rowStart + numRows <= tensor.rows,
      `${bytes.length} bytes from row ${rowStart} on are not whole rows of "${tensor.name}".`,
    );
    const targets = this.#targets.get(tensor.name);
    invariant(targets, `The tensor "${tensor.name}" is not part of the plan.`);
    for (const write of targets) write(memory, rowStart, bytes);
    this.#missingRows.set(tensor.name, this.#missingRows.get(tensor.name)! - numRows);
  }

  checkComplete(): void {
    for (const [name, missing] of this.#missingRows) {
      invariant(missing <= 0, `A step came before ${missing} rows of "${name}".`);
    }
  }

  #addTarget(tensor: TensorInfo, target: Target): void {
    this.#tensors.set(tensor.name, tensor);
    this.#missingRows.set(tensor.name, tensor.rows);
    const targets = this.#targets.get(tensor.name) ?? [];
    targets.push(target);
    this.#targets.set(tensor.name, targets);
  }
}
