import { existsSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { createBlobSource } from "./blobSource.ts";
import { createBufferSource } from "./bufferSource.ts";
import type { ByteSource } from "./byteSource.ts";
import { GGML_TYPE_NAMES } from "./ggmlTypeNames.ts";
import { parseGguf } from "./gguf.ts";
import { type GgufToWrite, type TypedGgufValue, value, writeGguf } from "./ggufWriter.ts";
import { rowByteLength, TENSOR_TYPES, type TensorType } from "./tensorType.ts";

function parse(file: GgufToWrite) {
  return parseGguf(createBufferSource(writeGguf(file), "test.gguf"));
}

async function roundTrip(entry: TypedGgufValue) {
  return (await parse({ metadata: { entry } })).metadata.get("entry");
}

it("reads a file written by hand, byte for byte", async () => {
  const text = (string: string) => [string.length, 0, 0, 0, 0, 0, 0, 0, ...Buffer.from(string)];
  const header = [
    ...Buffer.from("GGUF"),
    ...[3, 0, 0, 0], // version
    ...[1, 0, 0, 0, 0, 0, 0, 0], // tensors
    ...[2, 0, 0, 0, 0, 0, 0, 0], // metadata entries
    ...[...text("a"), 4, 0, 0, 0, 1, 2, 0, 0], // uint32
    ...[...text("b"), 9, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, ...text("hi")],
    ...[...text("w"), 2, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0],
    ...[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], // F32, offset
  ];
  const dataStart = Math.ceil(header.length / 32) * 32;
  const bytes = new Uint8Array(dataStart + 24);
  bytes.set(header);
  const { version, metadata, tensors } = await parseGguf(createBufferSource(bytes));
  expect(version).toBe(3);
  expect([...metadata]).toEqual([
    ["a", 513],
    ["b", ["hi"]],
  ]);
  expect([...tensors.values()]).toEqual([
    { name: "w", type: "F32", columns: 2, rows: 3, byteOffset: dataStart, byteLength: 24 },
  ]);
});

describe("values", () => {
  it.each([
    ["uint8", value.uint8(255), 255],
    ["int8", value.int8(-128), -128],
    ["uint16", value.uint16(65_535), 65_535],
    ["int16", value.int16(-32_768), -32_768],
    ["uint32", value.uint32(2 ** 32 - 1), 2 ** 32 - 1],
    ["int32", value.int32(-(2 ** 31)), -(2 ** 31)],
    ["float32", value.float32(0.1), Math.fround(0.1)],
    ["float64", value.float64(0.1), 0.1],
    ["bool", value.bool(true), true],
    ["bool", value.bool(false), false],
    ["string", value.string("Grüße 🙂"), "Grüße 🙂"],
    ["string", value.string(""), ""],
    ["uint64", value.uint64(2 ** 53 - 1), 2 ** 53 - 1],
    ["uint64", value.uint64(2n ** 53n), 2n ** 53n],
    ["uint64", value.uint64(2n ** 64n - 1n), 2n ** 64n - 1n],
    ["int64", value.int64(-5), -5],
    ["int64", value.int64(-(2n ** 63n)), -(2n ** 63n)],
    ["strings", value.strings(["a", "", "ä"]), ["a", "", "ä"]],
    ["no strings", value.strings([]), []],
    ["uint8 array", value.array("uint8", [1, 2]), Uint8Array.of(1, 2)],
    ["int8 array", value.array("int8", [-1, 2]), Int8Array.of(-1, 2)],
    ["uint16 array", value.array("uint16", [1, 65_535]), Uint16Array.of(1, 65_535)],
    ["int16 array", value.array("int16", [-1, 2]), Int16Array.of(-1, 2)],
    ["uint32 array", value.array("uint32", [1, 2]), Uint32Array.of(1, 2)],
    ["int32 array", value.array("int32", Int32Array.of(-1, 2)), Int32Array.of(-1, 2)],
    ["float32 array", value.array("float32", [0.5, -1]), Float32Array.of(0.5, -1)],
    ["float64 array", value.array("float64", [0.1]), Float64Array.of(0.1)],
    ["bool array", value.array("bool", [true, false]), Uint8Array.of(1, 0)],
    ["uint64 array", value.array("uint64", [1, 2n ** 60n]), BigUint64Array.of(1n, 2n ** 60n)],
    ["int64 array", value.array("int64", [-1]), BigInt64Array.of(-1n)],
    ["no numbers", value.array("float32", []), new Float32Array(0)],
    [
      "nested arrays",
      value.nested([value.array("int8", [1]), value.nested([value.strings(["x"])])]),
      [Int8Array.of(1), [["x"]]],
    ],
  ])("%s", async (_, entry, expected) => {
    expect(await roundTrip(entry)).toStrictEqual(expected);
  });

  it("keeps a byte order mark, alone and in front", async () => {
    expect(await roundTrip(value.strings(["\uFEFF", "\uFEFFa"]))).toEqual(["\uFEFF", "\uFEFFa"]);
  });

  it("replaces bytes that are not UTF-8 in values", async () => {
    const bytes = writeGguf({ metadata: { entry: value.strings(["ab"]) } });
    bytes[bytes.lastIndexOf("a".charCodeAt(0))] = 0xff;
    const { metadata } = await parseGguf(createBufferSource(bytes));
    expect(metadata.get("entry")).toEqual(["\uFFFDb"]);
  });

  it("keeps keys that objects would treat specially", async () => {
    const { metadata } = await parse({ metadata: [["__proto__", value.uint8(1)]] });
    expect(metadata.get("__proto__")).toBe(1);
    expect(metadata.get("constructor")).toBeUndefined();
  });
});

describe.each([2, 3])("version %i", (version) => {
  it("places tensors of every type", async () => {
    const types = Object.keys(TENSOR_TYPES) as TensorType[];
    const tensors = types.map((type, i) => {
      const columns = 256 * (i + 1);
      const data = new Uint8Array(3 * rowByteLength({ type, columns })).fill(i + 1);
      return { name: `t.${type}`, type, dims: [columns, 3], data };
    });
    const bytes = writeGguf({ version, metadata: {}, tensors });
    const source = createBufferSource(bytes);
    const file = await parseGguf(source);
    expect(file.version).toBe(version);
    expect([...file.tensors.keys()]).toEqual(tensors.map(({ name }) => name));
    for (const { name, dims, type, data } of tensors) {
      const info = file.tensors.get(name)!;
      expect(info).toMatchObject({ name, type, columns: dims[0], rows: 3 });
      expect(info.byteOffset % 32).toBe(0);
      expect(await source.read(info.byteOffset, info.byteLength)).toEqual(data);
    }
  });
});

it("multiplies the dimensions after the first to rows", async () => {
  const data = new Float32Array(2 * 3 * 4 * 5);
  const { tensors } = await parse({
    metadata: {},
    tensors: [
      { name: "four", type: "F32", dims: [2, 3, 4, 5], data },
      { name: "vector", type: "F32", dims: [120], data },
      { name: "scalar", type: "F32", dims: [], data: data.subarray(0, 1) },
    ],
  });
  expect(tensors.get("four")).toMatchObject({ columns: 2, rows: 60 });
  expect(tensors.get("vector")).toMatchObject({ columns: 120, rows: 1 });
  expect(tensors.get("scalar")).toMatchObject({ columns: 1, rows: 1 });
});

it.each([1, 8, 32, 4096])("honours an alignment of %i", async (alignment) => {
  const tensors = ["a", "b", "c"].map((name, i) => {
    return { name, type: "F32" as const, dims: [3], data: new Float32Array(3).fill(i) };
  });
  const bytes = writeGguf({ metadata: {}, tensors, alignment });
  const source = createBufferSource(bytes);
  for (const [i, info] of [...(await parseGguf(source)).tensors.values()].entries()) {
    const floats = new Float32Array((await source.read(info.byteOffset, 12)).buffer);
    expect([...floats]).toEqual([i, i, i]);
  }
});

describe("what Quire does not load is refused by name", () => {
  const supported = new Set<number>(Object.values(TENSOR_TYPES).map(({ id }) => id));
  const others = Object.entries(GGML_TYPE_NAMES).filter(([id]) => !supported.has(Number(id)));

  it.each(others)("tensor type %s, %s", async (id, name) => {
    const tensor = { name: "w", type: Number(id), dims: [256], data: new Uint8Array(1024) };
    await expect(parse({ metadata: {}, tensors: [tensor] })).rejects.toMatchObject({
      code: "model-unsupported",
      message: expect.stringMatching(new RegExp(`"w" has the type ${name};.*Q4_K`)),
    });
  });

  it("a tensor type without a name", async () => {
    const tensor = { name: "w", type: 999, dims: [256], data: new Uint8Array(1024) };
    await expect(parse({ metadata: {}, tensors: [tensor] })).rejects.toThrow("unknown id 999");
  });

  it.each([
    [1, "version 1"],
    [4, "version 4"],
    [0x03000000, "big-endian"],
  ])("version %i", async (version, name) => {
    await expect(parse({ version, metadata: {} })).rejects.toMatchObject({
      code: "model-unsupported",
      message: expect.stringContaining(name),
    });
  });

  it("a part of a split model", async () => {
    const metadata = { "split.no": value.uint16(0), "split.count": value.uint16(3) };
    await expect(parse({ metadata })).rejects.toMatchObject({
      code: "model-unsupported",
      message: expect.stringContaining("3 parts"),
    });
    expect((await parse({ metadata: { "split.count": value.uint16(1) } })).version).toBe(3);
  });

  it("a web page", async () => {
    const page = new TextEncoder().encode("<!doctype html>");
    await expect(parseGguf(createBufferSource(page))).rejects.toThrow(/starts with "<!do"/);
  });
});

describe("reading", () => {
  const tokens = Array.from({ length: 50_000 }, (_, i) => `Ġtoken${i}`);
  const bytes = writeGguf({
    metadata: { tokens: value.strings(tokens), long: value.string("x".repeat(500_000)) },
    tensors: [{ name: "w", type: "F32", dims: [1 << 20], data: new Uint8Array(1 << 22) }],
  });

  it("reads no byte twice and little of the tensors", async () => {
    const reads: [number, number][] = [];
    const inner = createBlobSource(new Blob([bytes]), "blob");
    const source: ByteSource = {
      ...inner,
      read(offset, byteLength) {
        reads.push([offset, byteLength]);
        return inner.read(offset, byteLength);
      },
    };
    const { metadata } = await parseGguf(source);
    expect(metadata.get("tokens")).toEqual(tokens);
    let end = 0;
    for (const [offset, byteLength] of reads) {
      expect(offset).toBe(end);
      end += byteLength;
    }
    expect(reads.length).toBeLessThan(10);
    expect(end).toBeLessThan(bytes.length - (1 << 20));
  });

  it("aborts", async () => {
    const controller = new AbortController();
    const parsing = parseGguf(createBlobSource(new Blob([bytes])), controller.signal);
    controller.abort();
    await expect(parsing).rejects.toMatchObject({ code: "aborted" });
  });

  it("passes on what the source throws", async () => {
    const source: ByteSource = {
      name: "broken",
      byteLength: 1000,
      read: () => Promise.reject(new TypeError("no disk")),
    };
    await expect(parseGguf(source)).rejects.toThrow("no disk");
  });

  it("reads a vocabulary of 128,256 tokens and 280,147 merges in time", async () => {
    const large = writeGguf({
      metadata: {
        tokens: value.strings(Array.from({ length: 128_256 }, (_, i) => `Ġtoken${i}`)),
        merges: value.strings(Array.from({ length: 280_147 }, (_, i) => `Ġa${i} b${i}`)),
        types: value.array("int32", new Int32Array(128_256)),
      },
    });
    const times: number[] = [];
    for (let run = 0; run < 3; run++) {
      const start = performance.now();
      const { metadata } = await parseGguf(createBlobSource(new Blob([large])));
      times.push(performance.now() - start);
      expect(metadata.get("merges")).toHaveLength(280_147);
    }
    // 0.2 s on an idle machine; the best of three and the margin are for busy ones.
    expect(Math.min(...times)).toBeLessThan(1000);
  });
});

const MODEL = "models/SmolLM2-135M-Instruct.Q4_1.gguf";

describe("SmolLM2-135M-Instruct Q4_1", () => {
  it.skipIf(!existsSync(MODEL))(`has the known facts (skipped without ${MODEL})`, async () => {
    const source = createBufferSource(readFileSync(MODEL), MODEL);
    expect(source.byteLength).toBe(98_362_432);
    const { version, metadata, tensors } = await parseGguf(source);
    expect([version, metadata.size, tensors.size]).toEqual([3, 33, 272]);
    expect(Object.fromEntries(metadata)).toMatchObject({
      "general.architecture": "llama",
      "llama.block_count": 30,
      "llama.embedding_length": 576,
      "llama.attention.head_count": 9,
      "llama.attention.head_count_kv": 3,
      "llama.feed_forward_length": 1536,
      "llama.rope.freq_base": 100_000,
      "llama.rope.dimension_count": 64,
      "llama.attention.layer_norm_rms_epsilon": Math.fround(1e-5),
      "llama.context_length": 8192,
      "tokenizer.ggml.model": "gpt2",
      "tokenizer.ggml.pre": "smollm",
      "tokenizer.ggml.bos_token_id": 1,
      "tokenizer.ggml.eos_token_id": 2,
      "tokenizer.ggml.padding_token_id": 2,
      "tokenizer.ggml.add_bos_token": false,
      "tokenizer.ggml.add_space_prefix": false,
    });
    expect(metadata.get("tokenizer.ggml.tokens")).toHaveLength(49_152);
    expect(metadata.get("tokenizer.ggml.merges")).toHaveLength(48_900);
    const types = metadata.get("tokenizer.ggml.token_type") as Int32Array;
    expect(types.filter((type) => type === 3)).toHaveLength(17);
    const counts: Record<string, number> = {};
    for (const { type } of tensors.values()) counts[type] = (counts[type] ?? 0) + 1;
    expect(counts).toEqual({ Q4_1: 210, F32: 61, Q8_0: 1 });
    expect(tensors.get("token_embd.weight")).toMatchObject({
      type: "Q8_0",
      columns: 576,
      rows: 49_152,
    });
    expect(tensors.has("output.weight")).toBe(false);
    const ends = [...tensors.values()].map((tensor) => tensor.byteOffset + tensor.byteLength);
    expect(Math.max(...ends)).toBe(98_362_432);
  });
});
