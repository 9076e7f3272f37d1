/**
 * @file Writes small GGUF files, for tests and fixtures. The writer does what it is told: it can
 * write files that no reader should accept, which is what half of the tests need.
 */
import { invariant } from "../errors.ts";
import {
  GGUF_DEFAULT_ALIGNMENT,
  GGUF_SCALAR_BYTES,
  GGUF_VALUE_TYPES,
  type GgufValueType,
} from "./ggufValue.ts";
import { TENSOR_TYPES, type TensorType } from "./tensorType.ts";

type ScalarType = Exclude<GgufValueType, "array">;
type Scalar = number | bigint | boolean | string;

/** A metadata value with the type that it has in the file. Made by `value` and `arrayOf`. */
export type TypedGgufValue =
  | { readonly type: ScalarType; readonly value: Scalar }
  | { readonly type: "array"; readonly itemType: ScalarType; readonly items: ArrayLike<Scalar> }
  | {
      readonly type: "array";
      readonly itemType: "array";
      readonly items: readonly TypedGgufValue[];
    };

/** Makers of typed metadata values: `value.uint32(3)`, `value.strings(["a"])`, `value.array("int8", [1])`. */
export const value = {
  uint8: (value: number): TypedGgufValue => ({ type: "uint8", value }),
  int8: (value: number): TypedGgufValue => ({ type: "int8", value }),
  uint16: (value: number): TypedGgufValue => ({ type: "uint16", value }),
  int16: (value: number): TypedGgufValue => ({ type: "int16", value }),
  uint32: (value: number): TypedGgufValue => ({ type: "uint32", value }),
  int32: (value: number): TypedGgufValue => ({ type: "int32", value }),
  float32: (value: number): TypedGgufValue => ({ type: "float32", value }),
  bool: (value: boolean): TypedGgufValue => ({ type: "bool", value }),
  string: (value: string): TypedGgufValue => ({ type: "string", value }),
  uint64: (value: number | bigint): TypedGgufValue => ({ type: "uint64", value }),
  int64: (value: number | bigint): TypedGgufValue => ({ type: "int64", value }),
  float64: (value: number): TypedGgufValue => ({ type: "float64", value }),
  strings: (items: readonly string[]): TypedGgufValue => ({
    type: "array",
    itemType: "string",
    items,
  }),
  /** An array of one scalar type; typed arrays are fine. */
  array: (itemType: ScalarType, items: ArrayLike<Scalar>): TypedGgufValue => ({
    type: "array",
    itemType,
    items,
  }),
  /** An array of arrays. */
  nested: (items: readonly TypedGgufValue[]): TypedGgufValue => ({
    type: "array",
    itemType: "array",
    items,
  }),
} as const;

export interface TensorToWrite {
  readonly name: string;
  /** A type that Quire knows, or the id of one that it does not. */
  readonly type: TensorType | number;
  /** ggml's order: the width of a row first. */
  readonly dims: readonly number[];
  /** The tensor's bytes in that type, little-endian. */
  readonly data: ArrayBufferView;
  /** Written instead of the true offset, to make bad files. */
  readonly offset?: number | bigint;
}

export interface GgufToWrite {
  /** 3 unless given. */
  readonly version?: number;
  /** A record, a Map, or a list of pairs, which may repeat a key. */
  readonly metadata:
    | Readonly<Record<string, TypedGgufValue>>
    | Iterable<readonly [string, TypedGgufValue]>;
  readonly tensors?: readonly TensorToWrite[];
  /** Written as `general.alignment` too, if given. */
  readonly alignment?: number;
}

/** The file as bytes. Sizes and types are not checked against each other. */
export function writeGguf({
  version = 3,
  metadata,
  tensors = [],
  alignment,
}: GgufToWrite): Uint8Array<ArrayBuffer> {
  const entries = isIterable(metadata) ? [...metadata] : Object.entries(metadata);
  if (alignment !== undefined) entries.push(["general.alignment", value.uint32(alignment)]);
  const dataAlignment = alignment ?? GGUF_DEFAULT_ALIGNMENT;

  const out = new ByteWriter();
  out.bytes(new TextEncoder().encode("GGUF"));
  out.scalar("uint32", version);
  out.scalar("uint64", tensors.length);
  out.scalar("uint64", entries.length);
  for (const [key, entry] of entries) {
    out.scalar("string", key);
    out.scalar("uint32", GGUF_VALUE_TYPES[entry.type]);
    writeValue(out, entry);
  }

  let offset = 0; // in the data section
  for (const tensor of tensors) {
    out.scalar("string", tensor.name);
    out.scalar("uint32", tensor.dims.length);
    for (const dim of tensor.dims) out.scalar("uint64", dim);
    out.scalar(
      "uint32",
      typeof tensor.type === "number" ? tensor.type : TENSOR_TYPES[tensor.type].id,
    );
    out.scalar("uint64", tensor.offset ?? offset);
    offset = alignUp(offset + tensor.data.byteLength, dataAlignment);
  }

  for (const { data } of tensors) {
    out.padTo(dataAlignment);
    out.bytes(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  }
  out.padTo(dataAlignment);
  return out.finish();
}

function isIterable(
  metadata: GgufToWrite["metadata"],
): metadata is Iterable<readonly [string, TypedGgufValue]> {
  return Symbol.iterator in metadata;
}

function writeValue(out: ByteWriter, entry: TypedGgufValue): void {
  if (entry.type !== "array") {
    out.scalar(entry.type, entry.value);
    return;
  }
  out.scalar("uint32", GGUF_VALUE_TYPES[entry.itemType]);
  out.scalar("uint64", entry.items.length);
  if (entry.itemType === "array") {
    for (const item of entry.items) writeValue(out, item);
  } else {
    for (let i = 0; i < entry.items.length; i++) out.scalar(entry.itemType, entry.items[i]!);
  }
}

function alignUp(n: number, alignment: number): number {
  return Math.ceil(n / alignment) * alignment;
}

/** Little-endian bytes in a buffer that doubles as it fills. */
class ByteWriter {
  #bytes = new Uint8Array(1024);
  #view = new DataView(this.#bytes.buffer);
  #length = 0;
  readonly #encoder = new TextEncoder();

  scalar(type: ScalarType, value: Scalar): void {
    if (type === "string") {
      invariant(typeof value === "string", `A GGUF string was given as ${typeof value}.`);
      const bytes = this.#encoder.encode(value);
      this.scalar("uint64", bytes.length);
      this.bytes(bytes);
      return;
    }
    const at = this.#grow(GGUF_SCALAR_BYTES[type]);
    const view = this.#view;
    // Integers wrap in DataView's setters, so out-of-range values cannot throw here.
    if (type === "uint8" || type === "bool") view.setUint8(at, Number(value));
    else if (type === "int8") view.setInt8(at, Number(value));
    else if (type === "uint16") view.setUint16(at, Number(value), true);
    else if (type === "int16") view.setInt16(at, Number(value), true);
    else if (type === "uint32") view.setUint32(at, Number(value), true);
    else if (type === "int32") view.setInt32(at, Number(value), true);
    else if (type === "float32") view.setFloat32(at, Number(value), true);
    else if (type === "float64") view.setFloat64(at, Number(value), true);
    else if (type === "uint64") view.setBigUint64(at, BigInt(value), true);
    else view.setBigInt64(at, BigInt(value), true);
  }

  bytes(bytes: Uint8Array): void {
    // In two steps: growing replaces #bytes, which must not be read before.
    const at = this.#grow(bytes.length);
    this.#bytes.set(bytes, at);
  }

  padTo(alignment: number): void {
    this.#grow(alignUp(this.#length, alignment) - this.#length);
  }

  finish(): Uint8Array<ArrayBuffer> {
    return this.#bytes.slice(0, this.#length);
  }

  /** Makes room for `count` zero bytes and returns where they start. */
  #grow(count: number): number {
    const at = this.#length;
    this.#length += count;
    if (this.#length > this.#bytes.length) {
      const larger = new Uint8Array(Math.max(this.#length, 2 * this.#bytes.length));
      larger.set(this.#bytes);
      this.#bytes = larger;
      this.#view = new DataView(larger.buffer);
    }
    return at;
  }
}
