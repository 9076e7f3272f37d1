/** @file Copies a GGUF with every tensor dequantised to F32: llama.cpp's exact twin of a model. */
import type { ByteSource } from "../../src/weights/byteSource.ts";
import { dequantizeRows } from "../../src/weights/dequantize.ts";
import { parseGguf } from "../../src/weights/gguf.ts";
import { GGUF_VALUE_TYPES } from "../../src/weights/ggufValue.ts";
import { rowByteLength } from "../../src/weights/tensorType.ts";

const ALIGNMENT = 32;
const ROWS_AT_ONCE = 1024;

/** Hands the twin's bytes to `write`, piece by piece. The metadata are copied byte by byte. */
export async function writeF32Twin(
  source: ByteSource,
  write: (bytes: Uint8Array) => void,
): Promise<void> {
  const { tensors, metadata } = await parseGguf(source);
  if (metadata.has("general.alignment"))
    throw new Error("The twin writer knows alignment 32 only.");
  const head = await source.read(0, Math.min(source.byteLength, 64 * 2 ** 20));
  const metadataEnd = skipMetadata(new DataView(head.buffer));

  // The tensor and metadata counts stay as they are; only types and offsets differ.
  let position = 0;
  const emit = (bytes: Uint8Array): void => {
    write(bytes);
    position += bytes.length;
  };
  const pad = (): void => emit(new Uint8Array((ALIGNMENT - (position % ALIGNMENT)) % ALIGNMENT));

  emit(head.subarray(0, metadataEnd));
  let offset = 0;
  for (const { name, rows, columns } of tensors.values()) {
    const dims = rows === 1 ? [columns] : [columns, rows];
    const nameBytes = new TextEncoder().encode(name);
    const entry = new DataView(new ArrayBuffer(8 + nameBytes.length + 4 + 8 * dims.length + 4 + 8));
    entry.setBigUint64(0, BigInt(nameBytes.length), true);
    new Uint8Array(entry.buffer).set(nameBytes, 8);
    let at = 8 + nameBytes.length;
    entry.setUint32(at, dims.length, true);
    at += 4;
    for (const dim of dims) {
      entry.setBigUint64(at, BigInt(dim), true);
      at += 8;
    }
    entry.setUint32(at, 0, true); // F32
    entry.setBigUint64(at + 4, BigInt(offset), true);
    emit(new Uint8Array(entry.buffer));
    offset += Math.ceil((4 * rows * columns) / ALIGNMENT) * ALIGNMENT;
  }
  for (const tensor of tensors.values()) {
    pad();
    const rowBytes = rowByteLength(tensor);
    for (let row = 0; row < tensor.rows; row += ROWS_AT_ONCE) {
      const numRows = Math.min(ROWS_AT_ONCE, tensor.rows - row);
      const bytes = await source.read(tensor.byteOffset + row * rowBytes, numRows * rowBytes);
      const values = dequantizeRows(tensor.type, bytes, tensor.columns, numRows);
      emit(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
    }
  }
  pad();
}

/** Where the metadata end in a file's first bytes. The file is known to be sound. */
function skipMetadata(view: DataView): number {
  let at = 24; // magic, version, tensor count, metadata count
  const sizes: Record<number, number> = {
    0: 1,
    1: 1,
    2: 2,
    3: 2,
    4: 4,
    5: 4,
    6: 4,
    7: 1,
    10: 8,
    11: 8,
    12: 8,
  };
  const length = (): number => {
    at += 8;
    return Number(view.getBigUint64(at - 8, true));
  };
  const skipString = (): void => {
    const byteLength = length(); // in a statement of its own: it moves `at`
    at += byteLength;
  };
  const skipValue = (type: number): void => {
    if (type === GGUF_VALUE_TYPES.string) {
      skipString();
    } else if (type === GGUF_VALUE_TYPES.array) {
      const itemType = view.getUint32(at, true);
      at += 4;
      const count = length();
      for (let i = 0; i < count; i++) skipValue(itemType);
    } else {
      at += sizes[type]!;
    }
  };
  const count = Number(view.getBigUint64(16, true));
  for (let i = 0; i < count; i++) {
    skipString();
    at += 4;
    skipValue(view.getUint32(at - 4, true));
  }
  return at;
}
