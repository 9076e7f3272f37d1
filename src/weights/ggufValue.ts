/** Metadata value types of GGUF by their ids in the file. */
export const GGUF_VALUE_TYPES = {
  uint8: 0,
  int8: 1,
  uint16: 2,
  int16: 3,
  uint32: 4,
  int32: 5,
  float32: 6,
  bool: 7,
  string: 8,
  array: 9,
  uint64: 10,
  int64: 11,
  float64: 12,
} as const;

export type GgufValueType = keyof typeof GGUF_VALUE_TYPES;

/** An array of numbers in a file. Arrays of bool are Uint8Arrays of 0 and 1. */
export type GgufNumbers =
  | Uint8Array
  | Int8Array
  | Uint16Array
  | Int16Array
  | Uint32Array
  | Int32Array
  | Float32Array
  | Float64Array
  | BigUint64Array
  | BigInt64Array;

/**
 * A metadata value as Quire hands it out. A 64-bit integer is a number where a number holds it
 * exactly, else a bigint. Arrays of numbers are typed arrays; arrays of arrays are nested.
 */
export type GgufValue =
  | number
  | bigint
  | boolean
  | string
  | readonly string[]
  | GgufNumbers
  | readonly GgufValue[];

/** Where tensor data is aligned in a file that does not say: the value that the format fixes. */
export const GGUF_DEFAULT_ALIGNMENT = 32;

/** Value types of a fixed size. */
export type GgufNumberType = Exclude<GgufValueType, "string" | "array">;

/** Bytes of a value. */
export const GGUF_SCALAR_BYTES = {
  uint8: 1,
  int8: 1,
  uint16: 2,
  int16: 2,
  uint32: 4,
  int32: 4,
  float32: 4,
  bool: 1,
  uint64: 8,
  int64: 8,
  float64: 8,
} as const satisfies Record<GgufNumberType, number>;

/**
 * The file's bytes as an array of their type, without a copy: `bytes` fills its buffer. Browsers
 * run on little-endian machines only, as the file is.
 */
export function numberArray(
  type: GgufNumberType,
  { buffer }: Uint8Array<ArrayBuffer>,
): GgufNumbers {
  switch (type) {
    case "uint8":
    case "bool":
      return new Uint8Array(buffer);
    case "int8":
      return new Int8Array(buffer);
    case "uint16":
      return new Uint16Array(buffer);
    case "int16":
      return new Int16Array(buffer);
    case "uint32":
      return new Uint32Array(buffer);
    case "int32":
      return new Int32Array(buffer);
    case "float32":
      return new Float32Array(buffer);
    case "float64":
      return new Float64Array(buffer);
    case "uint64":
      return new BigUint64Array(buffer);
    case "int64":
      return new BigInt64Array(buffer);
  }
}
