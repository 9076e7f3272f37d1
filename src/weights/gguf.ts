import { QuireError } from "../errors.ts";
import type { ByteSource } from "./byteSource.ts";
import { GGML_TYPE_NAMES } from "./ggmlTypeNames.ts";
import { GgufReader } from "./ggufReader.ts";
import {
  GGUF_DEFAULT_ALIGNMENT,
  GGUF_SCALAR_BYTES,
  GGUF_VALUE_TYPES,
  type GgufValue,
  type GgufValueType,
  numberArray,
} from "./ggufValue.ts";
import { rowByteLength, TENSOR_TYPES, type TensorInfo, type TensorType } from "./tensorType.ts";

/** The header of a GGUF file. The tensors' data stay in the file. */
export interface GgufFile {
  readonly version: 2 | 3;
  /** In the file's order. */
  readonly metadata: ReadonlyMap<string, GgufValue>;
  /** By name, in the file's order. */
  readonly tensors: ReadonlyMap<string, TensorInfo>;
}

/** What a header may claim. Checked before anything is allocated for the claim. */
export const GGUF_LIMITS = {
  /** Metadata and tensor descriptions together. The largest known vocabularies take 20 MiB. */
  headerBytes: 128 * 2 ** 20,
  metadataCount: 16_384,
  tensorCount: 65_536,
  /** The format's own limit. */
  keyBytes: 65_535,
  tensorNameBytes: 256,
  stringBytes: 16 * 2 ** 20,
  arrayLength: 2 ** 22,
  /** Arrays in one file, nested ones included. */
  arrayCount: 65_536,
  /** 1 is an array of scalars. */
  arrayDepth: 4,
  dims: 4,
  dim: 2 ** 32,
  tensorElements: Number.MAX_SAFE_INTEGER,
  alignment: 65_536,
} as const;

const MAGIC = 0x46554747; // "GGUF" as a little-endian word

const VALUE_TYPE_NAMES = new Map(
  Object.entries(GGUF_VALUE_TYPES).map(([name, id]) => [id as number, name as GgufValueType]),
);
const TENSOR_TYPE_NAMES = new Map(
  Object.entries(TENSOR_TYPES).map(([name, { id }]) => [id as number, name as TensorType]),
);

// A token of a vocabulary may be or start with U+FEFF, which a plain decoder swallows. Bytes that
// are not UTF-8 become U+FFFD in values, as some vocabularies hold them, and are an error in names.
const valueDecoder = new TextDecoder("utf-8", { ignoreBOM: true });
const nameDecoder = new TextDecoder("utf-8", { ignoreBOM: true, fatal: true });

/**
 * Reads the header of a GGUF file, version 2 or 3, little-endian, in one pass.
 *
 * Throws QuireError `gguf-invalid` if the file is not a GGUF, ends too early or contradicts itself,
 * `gguf-limit` for a claim over GGUF_LIMITS, `model-unsupported` for a version, a tensor type or a
 * split file that Quire does not load; and what `source.read` throws.
 */
export async function parseGguf(source: ByteSource, signal?: AbortSignal): Promise<GgufFile> {
  const reader = new GgufReader(source, GGUF_LIMITS.headerBytes, signal);
  return new GgufParser(source.name, source.byteLength, reader).parse();
}

/** A tensor as described in the file, its offset still relative to the data section. */
interface TensorEntry extends Omit<TensorInfo, "byteOffset"> {
  readonly dataOffset: number;
}

class GgufParser {
  readonly #name: string;
  readonly #fileBytes: number;
  readonly #reader: GgufReader;
  #numArrays = 0;

  constructor(name: string, fileBytes: number, reader: GgufReader) {
    this.#name = name;
    this.#fileBytes = fileBytes;
    this.#reader = reader;
  }

  async parse(): Promise<GgufFile> {
    const reader = this.#reader;
    const version = await this.#version();
    await reader.fill(16);
    const tensorCount = this.#limit("tensorCount", reader.takeCount());
    const metadataCount = this.#limit("metadataCount", reader.takeCount());
    const metadata = await this.#metadata(metadataCount);
    this.#refuseSplit(metadata);
    const alignment = this.#alignment(metadata);
    const entries = await this.#tensorEntries(tensorCount);
    const dataStart = Math.ceil(reader.position / alignment) * alignment;
    return { version, metadata, tensors: this.#place(entries, dataStart, alignment) };
  }

  async #version(): Promise<2 | 3> {
    const reader = this.#reader;
    if (this.#fileBytes < 4)
      throw this.#invalid(`not a GGUF file: it has ${this.#fileBytes} bytes.`);
    await reader.fill(4);
    const magic = reader.takeUint32();
    if (magic !== MAGIC) {
      const start = JSON.stringify(String.fromCharCode(...littleEndianBytes(magic)));
      throw this.#invalid(
        `not a GGUF file: it starts with ${start} instead of "GGUF". A web page or a Git LFS pointer in its place starts with "<" or "vers": check the link.`,
      );
    }
    await reader.fill(4);
    const version = reader.takeUint32();
    if (version === 2 || version === 3) return version;
    if (version !== 0 && (version & 0xffff) === 0) {
      throw this.#unsupported("it is a big-endian GGUF. Convert the model as little-endian.");
    }
    throw this.#unsupported(
      `it is a GGUF of version ${version}; Quire reads 2 and 3. Convert the model again with a current llama.cpp.`,
    );
  }

  // --- Metadata ---

  async #metadata(count: number): Promise<Map<string, GgufValue>> {
    const reader = this.#reader;
    const metadata = new Map<string, GgufValue>();
    for (let i = 0; i < count; i++) {
      reader.place = `metadata entry ${i} of ${count}`;
      const key = await this.#identifier("keyBytes");
      if (metadata.has(key)) throw this.#invalid(`the metadata key ${quote(key)} is there twice.`);
      reader.place = `the metadata value ${quote(key)}`;
      metadata.set(key, await this.#value(await this.#valueType()));
    }
    return metadata;
  }

  async #valueType(): Promise<GgufValueType> {
    await this.#reader.fill(4);
    const id = this.#reader.takeUint32();
    const type = VALUE_TYPE_NAMES.get(id);
    if (!type) throw this.#invalid(`${this.#reader.place} has the unknown value type ${id}.`);
    return type;
  }

  async #value(type: GgufValueType): Promise<GgufValue> {
    if (type === "array") return this.#array(1);
    if (type === "string") return this.#string();
    await this.#reader.fill(GGUF_SCALAR_BYTES[type]);
    const { view, at } = this.#reader.takeView(GGUF_SCALAR_BYTES[type]);
    switch (type) {
      case "uint8":
        return view.getUint8(at);
      case "int8":
        return view.getInt8(at);
      case "uint16":
        return view.getUint16(at, true);
      case "int16":
        return view.getInt16(at, true);
      case "uint32":
        return view.getUint32(at, true);
      case "int32":
        return view.getInt32(at, true);
      case "float32":
        return view.getFloat32(at, true);
      case "float64":
        return view.getFloat64(at, true);
      case "bool":
        return this.#bool(view.getUint8(at));
      case "uint64":
        return numberIfSafe(view.getBigUint64(at, true));
      case "int64":
        return numberIfSafe(view.getBigInt64(at, true));
    }
  }

  async #array(depth: number): Promise<GgufValue> {
    this.#limit("arrayDepth", depth);
    this.#limit("arrayCount", ++this.#numArrays);
    const reader = this.#reader;
    const type = await this.#valueType();
    await reader.fill(8);
    const length = this.#limit("arrayLength", reader.takeCount());
    // Even empty strings and arrays take bytes: a length that the file cannot hold ends here.
    reader.expect(length * MIN_ITEM_BYTES[type]);
    if (type === "string") {
      const strings: string[] = [];
      for (let i = 0; i < length; i++)
        strings.push(this.#bufferedString() ?? (await this.#string()));
      return strings;
    }
    if (type === "array") {
      const arrays: GgufValue[] = [];
      for (let i = 0; i < length; i++) arrays.push(await this.#array(depth + 1));
      return arrays;
    }
    const bytes = new Uint8Array(length * GGUF_SCALAR_BYTES[type]);
    await reader.copyTo(bytes);
    if (type === "bool") for (const byte of bytes) this.#bool(byte);
    return numberArray(type, bytes);
  }

  #bool(byte: number): boolean {
    if (byte > 1) throw this.#invalid(`${this.#reader.place} has the bool ${byte}; 0 and 1 exist.`);
    return byte === 1;
  }

  // --- Strings ---

  async #string(): Promise<string> {
    return valueDecoder.decode(await this.#stringBytes("stringBytes"));
  }

  /** The next string if it is already in memory: most strings of a vocabulary, without an await. */
  #bufferedString(): string | undefined {
    const bytes = this.#reader.takeStringIfThere(GGUF_LIMITS.stringBytes);
    return bytes && valueDecoder.decode(bytes);
  }

  async #stringBytes(limit: "stringBytes" | "keyBytes" | "tensorNameBytes"): Promise<Uint8Array> {
    await this.#reader.fill(8);
    const length = this.#limit(limit, this.#reader.takeCount());
    await this.#reader.fill(length);
    return this.#reader.takeBytes(length);
  }

  /** A metadata key or tensor name. */
  async #identifier(limit: "keyBytes" | "tensorNameBytes"): Promise<string> {
    const bytes = await this.#stringBytes(limit);
    try {
      return nameDecoder.decode(bytes);
    } catch (cause) {
      throw this.#invalid(`${this.#reader.place} has a name that is not UTF-8.`, cause);
    }
  }

  // --- Tensors ---

  #refuseSplit(metadata: ReadonlyMap<string, GgufValue>): void {
    const count = metadata.get("split.count");
    if (typeof count === "number" && count > 1) {
      throw this.#unsupported(
        `it is one of the ${count} parts of a split model. Merge them with llama-gguf-split --merge.`,
      );
    }
  }

  #alignment(metadata: ReadonlyMap<string, GgufValue>): number {
    const alignment = metadata.get("general.alignment") ?? GGUF_DEFAULT_ALIGNMENT;
    this.#reader.place = `"general.alignment"`;
    if (typeof alignment !== "number" || alignment < 1 || !Number.isInteger(Math.log2(alignment))) {
      throw this.#invalid(`"general.alignment" is ${String(alignment)}, not a power of two.`);
    }
    return this.#limit("alignment", alignment);
  }

  async #tensorEntries(count: number): Promise<TensorEntry[]> {
    const reader = this.#reader;
    const entries: TensorEntry[] = [];
    const names = new Set<string>();
    for (let i = 0; i < count; i++) {
      reader.place = `tensor ${i} of ${count}`;
      const name = await this.#identifier("tensorNameBytes");
      if (names.has(name)) throw this.#invalid(`the tensor ${quote(name)} is there twice.`);
      names.add(name);
      reader.place = `the tensor ${quote(name)}`;
      entries.push(await this.#tensorEntry(name));
    }
    return entries;
  }

  async #tensorEntry(name: string): Promise<TensorEntry> {
    const reader = this.#reader;
    await reader.fill(4);
    const numDims = this.#limit("dims", reader.takeUint32());
    await reader.fill(8 * numDims + 4 + 8);
    let columns = 1;
    let rows = 1;
    for (let i = 0; i < numDims; i++) {
      const dim = this.#limit("dim", reader.takeCount());
      if (dim === 0) throw this.#invalid(`the tensor ${quote(name)} has an empty dimension.`);
      if (i === 0) columns = dim;
      else rows *= dim;
      this.#limit("tensorElements", rows * columns);
    }
    const type = this.#tensorType(name, reader.takeUint32());
    const { blockSize } = TENSOR_TYPES[type];
    if (columns % blockSize !== 0) {
      throw this.#invalid(
        `the tensor ${quote(name)} has rows of ${columns} weights; ${type} needs a multiple of ${blockSize}.`,
      );
    }
    const byteLength = rows * rowByteLength({ type, columns });
    return { name, type, columns, rows, byteLength, dataOffset: reader.takeCount() };
  }

  #tensorType(tensor: string, id: number): TensorType {
    const type = TENSOR_TYPE_NAMES.get(id);
    if (type) return type;
    const name = GGML_TYPE_NAMES[id] ?? `of the unknown id ${id}`;
    throw new QuireError(
      "model-unsupported",
      `${this.#name}: the tensor ${quote(tensor)} has the type ${name}; Quire loads ${[...TENSOR_TYPE_NAMES.values()].join(", ")}.`,
      { tensor, type: GGML_TYPE_NAMES[id] ?? id },
    );
  }

  /** Checks that every tensor's data lies in the file, aligned and apart from the others. */
  #place(
    entries: readonly TensorEntry[],
    dataStart: number,
    alignment: number,
  ): Map<string, TensorInfo> {
    const tensors = new Map<string, TensorInfo>();
    for (const { dataOffset, ...entry } of entries) {
      const byteOffset = dataStart + dataOffset;
      if (dataOffset % alignment !== 0) {
        throw this.#invalid(
          `the data of the tensor ${quote(entry.name)} start at ${dataOffset}, not at a multiple of ${alignment}.`,
        );
      }
      if (byteOffset + entry.byteLength > this.#fileBytes) {
        throw this.#invalid(
          `the data of the tensor ${quote(entry.name)} (${entry.byteLength} bytes at ${byteOffset}) go past the file's ${this.#fileBytes} bytes. If the download was cut, fetch the file again.`,
        );
      }
      tensors.set(entry.name, { ...entry, byteOffset });
    }
    const inOrder = [...tensors.values()].sort((a, b) => a.byteOffset - b.byteOffset);
    for (const [i, tensor] of inOrder.entries()) {
      const previous = inOrder[i - 1];
      if (previous && previous.byteOffset + previous.byteLength > tensor.byteOffset) {
        throw this.#invalid(
          `the tensors ${quote(previous.name)} and ${quote(tensor.name)} overlap.`,
        );
      }
    }
    return tensors;
  }

  // --- Errors ---

  #limit(name: keyof typeof GGUF_LIMITS, found: number): number {
    const limit = GGUF_LIMITS[name];
    if (found <= limit) return found;
    throw new QuireError(
      "gguf-limit",
      `${this.#name}: ${found} is over the limit ${name} = ${limit}, at ${this.#reader.place}.`,
      { limit: name, maximum: limit, found },
    );
  }

  #invalid(message: string, cause?: unknown): QuireError {
    return new QuireError("gguf-invalid", `${this.#name}: ${message}`, {}, { cause });
  }

  #unsupported(message: string): QuireError {
    return new QuireError("model-unsupported", `${this.#name}: ${message}`);
  }
}

/** A string is at least its length, an array at least its type and length. */
const MIN_ITEM_BYTES = { ...GGUF_SCALAR_BYTES, string: 8, array: 12 } as const;

/** A name for a message: a hostile file may have keys of 64 KiB. */
function quote(name: string): string {
  return JSON.stringify(name.length > 80 ? `${name.slice(0, 80)}...` : name);
}

function numberIfSafe(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

function littleEndianBytes(word: number): number[] {
  return [word & 255, (word >> 8) & 255, (word >> 16) & 255, word >>> 24];
}
