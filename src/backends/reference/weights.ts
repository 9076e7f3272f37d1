import { invariant } from "../../errors.ts";
import { dequantizeRows } from "../../weights/dequantize.ts";
import { rowByteLength, type TensorInfo } from "../../weights/tensorType.ts";

/** The dequantised weights of a plan. */
export class Weights {
  readonly #values = new Map<string, Float32Array>();
  /** Rows that nobody has written yet. */
  readonly #missingRows = new Map<string, number>();
  readonly tensors: readonly TensorInfo[];

  constructor(tensors: Iterable<TensorInfo>) {
    this.tensors = [...new Map(Array.from(tensors, (tensor) => [tensor.name, tensor])).values()];
    for (const { name, rows, columns } of this.tensors) {
      this.#values.set(name, new Float32Array(rows * columns));
      this.#missingRows.set(name, rows);
    }
  }

  get byteLength(): number {
    let sum = 0;
    for (const values of this.#values.values()) sum += values.byteLength;
    return sum;
  }

  /** [rows, columns] */
  get({ name }: TensorInfo): Float32Array {
    const values = this.#values.get(name);
    invariant(values, `The tensor "${name}" is not part of the plan.`);
    return values;
  }

  writeRows(tensor: TensorInfo, rowStart: number, bytes: Uint8Array): void {
    const numRows = bytes.length / rowByteLength(tensor);
    invariant(
      Number.isInteger(numRows) && rowStart >= 0 && rowStart + numRows <= tensor.rows,
      `${bytes.length} bytes from row ${rowStart} on are not whole rows of "${tensor.name}".`,
    );
    const rows = dequantizeRows(tensor.type, bytes, tensor.columns, numRows);
    this.get(tensor).set(rows, rowStart * tensor.columns);
    this.#missingRows.set(tensor.name, this.#missingRows.get(tensor.name)! - numRows);
  }

  checkComplete(): void {
    for (const [name, missing] of this.#missingRows) {
      invariant(missing <= 0, `A step came before ${missing} rows of "${name}".`);
    }
  }
}
